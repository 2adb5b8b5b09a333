"""The advertisements that a router makes itself: when, with which sequence number, how often again.

Sequence numbers are wall-clock nanoseconds, pushed above whatever the network still has of an
earlier life of this router. Changes of links are gathered for 2 ms, and not more than every 100 ms;
attached hosts are told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from xiatb.identity.keys import KeyPair
from xiatb.node.lsa import (
    ADLINKS_PER_LSA,
    LINKS_PER_LSA,
    MAX_FRAGMENTS,
    AdLink,
    Link,
    Lsa,
    LsaType,
    fragment,
    make,
    pack_adlinks,
    pack_links,
)

# Between ADs nobody can see that a router died together with its peer but by ageing: keep it short.
LIFETIME = {LsaType.LINKS: 300, LsaType.ATTACH: 300, LsaType.ADLINKS: 60}
MAX_LIFETIME = 3600  # as MaxAge of OSPF, RFC 2328
WITHDRAWN_LIFETIME = 60
SETTLE = 0.002
HOLD = 0.1


class Origination:
    """Our own advertisements by key; `publish` takes each new one into the database and floods it."""

    def __init__(
        self,
        key: KeyPair,
        hid: bytes,
        credentials: bytes,
        rng: Random,
        clock_ns: Callable[[], int],
        publish: Callable[[Lsa, float], None],
        *,
        pace: int = 1,
    ) -> None:
        """`pace` stretches the time between changes of links and, by its cube, lifetimes, which MAX_LIFETIME
        seconds bounds."""
        self._hold = HOLD * pace
        self._lifetime = {kind: min(MAX_LIFETIME, life * pace**3) for kind, life in LIFETIME.items()}
        self._key, self._hid, self._credentials = key, hid, credentials
        self._rng, self._clock_ns, self._publish = rng, clock_ns, publish
        self._own: dict[bytes, bytes] = {}  # key -> body; what we want the network to have
        self._refresh: dict[bytes, float] = {}
        self._seq = 0
        self._links_at: float | None = None
        self._links_last = float("-inf")

    def links_changed(self, now: float) -> None:
        """Have LINKS and ADLINKS made anew soon."""
        if self._links_at is None:
            self._links_at = max(now + SETTLE, self._links_last + self._hold)

    def links_due(self, now: float) -> bool:
        """Tell once whether the time has come to call `set_links`."""
        if self._links_at is None or self._links_at > now:
            return False
        self._links_at = None
        self._links_last = now
        return True

    def set_links(self, links: Iterable[Link], adlinks: Iterable[AdLink], now: float) -> None:
        """Publish what of our neighbours in the AD and in other ADs has changed."""
        inner, outer = sorted(links), sorted(adlinks)
        bodies: dict[bytes, bytes] = {}
        # A router without neighbours still says so, lest an older word of it stand.
        for number in range(min(MAX_FRAGMENTS, max(1, -(-len(inner) // LINKS_PER_LSA)))):
            part = inner[number * LINKS_PER_LSA : (number + 1) * LINKS_PER_LSA]
            bodies[self._lsa_key(LsaType.LINKS, fragment(number))] = pack_links(part)
        for number in range(min(MAX_FRAGMENTS, -(-len(outer) // ADLINKS_PER_LSA))):
            outer_part = outer[number * ADLINKS_PER_LSA : (number + 1) * ADLINKS_PER_LSA]
            bodies[self._lsa_key(LsaType.ADLINKS, fragment(number))] = pack_adlinks(outer_part)
        for key in [k for k in self._own if k[0] != LsaType.ATTACH and k not in bodies]:
            self._withdraw(key, now)
        for key, body in bodies.items():
            if self._own.get(key) != body:
                self._own[key] = body
                self._issue(key, now)

    def attach(self, host: bytes, record: bytes, now: float) -> None:
        """Publish that the host with the 20-byte HID id is here; `record` is its JOIN."""
        key = self._lsa_key(LsaType.ATTACH, host)
        self._own[key] = record
        self._issue(key, now)

    def detach(self, host: bytes, now: float) -> None:
        """Take back that the host is here."""
        key = self._lsa_key(LsaType.ATTACH, host)
        if key in self._own:
            self._withdraw(key, now)

    def answer(self, stale: Lsa, now: float) -> None:
        """The network has a later word of ours than we know (from before a restart): say what holds now."""
        self._seq = max(self._seq, stale.seq)
        if stale.key in self._own:
            self._issue(stale.key, now)
        elif not stale.withdrawn:
            self._withdraw(stale.key, now)

    def _lsa_key(self, kind: LsaType, obj: bytes) -> bytes:
        return bytes([kind]) + self._hid + obj

    def _make(self, key: bytes, body: bytes, lifetime: int, withdrawn: bool) -> Lsa:
        self._seq = max(self._seq + 1, self._clock_ns())
        return make(
            self._key,
            LsaType(key[0]),
            origin=self._hid,
            obj=key[21:],
            seq=self._seq,
            lifetime=lifetime,
            credentials=self._credentials,
            body=body,
            withdrawn=withdrawn,
        )

    def _issue(self, key: bytes, now: float) -> None:
        lifetime = self._lifetime[LsaType(key[0])]
        self._refresh[key] = now + lifetime / 3 * self._rng.uniform(0.8, 1.0)
        self._publish(self._make(key, self._own[key], lifetime, False), now)

    def _withdraw(self, key: bytes, now: float) -> None:
        self._own.pop(key, None)
        self._refresh.pop(key, None)
        self._publish(self._make(key, b"", WITHDRAWN_LIFETIME, True), now)

    def tick(self, now: float) -> None:
        """Publish again what is due for it, and with it what soon would be: one UPDATE takes them all."""
        if min(self._refresh.values(), default=float("inf")) > now:
            return
        for key, due in list(self._refresh.items()):
            if due <= now + self._lifetime[LsaType(key[0])] / 10:
                self._issue(key, now)

    def next_deadline(self) -> float:
        """Return when `tick` or `links_due` has something to do (infinity: never)."""
        due = min(self._refresh.values(), default=float("inf"))
        return due if self._links_at is None else min(due, self._links_at)
