// A router with one real port, eth0, and behind it a network that only exists in memory: three hosts that answer
// pings, near, far, and over a lossy link. For trying an application against delays without a large topology.
// Use it as the `click` file of a router whose ports are xia0r and eth0.
require(library router.click);
require(library memory_node.click);

define($AD  AD:1000000000000000000000000000000000000000,
       $NEAR HID:000000000000000000000000000000000000000a,
       $FAR  HID:000000000000000000000000000000000000000b,
       $LOSSY HID:000000000000000000000000000000000000000c);

core :: XIARouterCore;
out :: XIAPaintSwitch;
core -> out;
lc0 :: XIAInternalCard(xia0r, 0, 9000);  out[0] -> lc0 -> core;  lc0[1] -> [1] core;
lc1 :: XIALineCard(eth0, 1, 1500);       out[1] -> lc1 -> core;  lc1[1] -> [1] core;

// One fake host and the link to it: input and output 0 are the router's side.
elementclass FakeHost { $ad, $hid, $latency, $bandwidth, $loss |
    link :: Link($latency, $bandwidth);
    host :: MemoryHost($ad, $hid);
    input -> lose :: RandomSample(DROP $loss) -> link -> host -> [1] link [1] -> output;
    Idle -> [1] host [1] -> Discard;
}
out[2] -> near  :: FakeHost($AD, $NEAR,  1ms,  1Gbps,   0)  -> core;
out[3] -> far   :: FakeHost($AD, $FAR,   80ms, 100Mbps, 0)  -> core;
out[4] -> lossy :: FakeHost($AD, $LOSSY, 20ms, 10Mbps,  5%) -> core;

Script(write core/rt_AD.set $AD SELF,
       write core/rt_HID.set $NEAR 2, write core/rt_HID.set $FAR 3, write core/rt_HID.set $LOSSY 4);
