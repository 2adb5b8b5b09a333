// A hypervisor host: a router whose last ports are the taps of its guests.
require(library router.click);

// The port of a guest. A class of its own, so that a configuration of one's own can treat guests differently from
// links (a RandomSample, a shaper, a ToDump) by defining it anew.
elementclass XIAGuestCard XIALineCard;

elementclass XIAHypervisorCore XIARouterCore;
