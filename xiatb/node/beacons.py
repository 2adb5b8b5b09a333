"""A router's beacons: when one goes out at which port, what is in it, and which nonces still count.

A port's beacon is signed once for each nonce, so that hosts can compare bytes. All ports' beacons that are
nearly due go out with the first that is: a node wakes up once. Where another router is at the other end and
no host, beacons are for nobody, and few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from xiatb.identity.keys import KeyPair
from xiatb.node import join_messages as jm
from xiatb.node.effects import SendJoin

BROADCAST_MAC = b"\xff" * 6
NONCE_LIFE = 30.0
QUIET = 10
"""So many times as rare are beacons where a router is and no host, but not rarer than MAX_INTERVAL s."""
MAX_INTERVAL = 60.0
EARLY = 0.25
"""What is due within this share of the interval is sent when anything is."""


class Beacons:
    """Beacons of one router; `ports`: index -> MTU in bytes. A port has none before `begin`."""

    def __init__(
        self,
        key: KeyPair,
        credentials: bytes,
        rng: Random,
        *,
        ports: Mapping[int, int],
        caps: int,
        interval: float,
        entropy: Callable[[int], bytes],
    ) -> None:
        """`interval` in seconds; `rng` jitters it; nonces come from `entropy`, as they must differ after a
        restart."""
        self.ports = dict(ports)
        self.instance = int.from_bytes(entropy(8), "big")
        self.nonce = self._previous = entropy(8)
        self.signed: dict[int, bytes] = {}
        self._key, self._credentials, self._caps = key, credentials, caps
        self._rng, self._entropy, self._usual = rng, entropy, interval
        self._nonce_until: float | None = None
        self._due: dict[int, float] = {}
        self._quiet: set[int] = set()

    def begin(self, port: int, now: float, mtu: int | None) -> SendJoin:
        """The link of `port` is up, with a new `mtu` if given: a beacon at once, then one each interval."""
        if mtu is not None or port not in self.ports:
            self.ports[port] = mtu or 1500
            self.signed.pop(port, None)
        self._quiet.discard(port)
        return self._repeat(port, now)

    def end(self, port: int) -> None:
        """The link of `port` is down: none any more."""
        self._due.pop(port, None)

    def end_all(self) -> None:
        """None at any port."""
        self._due.clear()

    def hush(self, port: int) -> None:
        """There is a router at `port` and no host: beacons are rare from now on."""
        self._quiet.add(port)
        self.signed.pop(port, None)

    def put_off(self, port: int, until: float) -> None:
        """The next one not before `until`."""
        if port in self._due:
            self._due[port] = max(self._due[port], until)

    def wake(self, port: int, now: float) -> None:
        """There is a host at `port`, or no router any more: beacons come at the usual interval."""
        if port in self._quiet:
            self._quiet.remove(port)
            self.signed.pop(port, None)
            if port in self._due:
                self._due[port] = now

    def tick(self, now: float) -> list[SendJoin]:
        """Return the beacons that are due, or nearly so."""
        soon = now + EARLY * self._usual
        return [self._repeat(port, now) for port, due in list(self._due.items()) if due <= soon]

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, or None."""
        return min(self._due.values(), default=None)

    def to(self, port: int, mac: bytes, now: float) -> SendJoin:
        """Return the beacon of `port`, for `mac`."""
        self.rotate(now)
        message = self.signed.get(port)
        if message is None:
            message = self.signed[port] = self.sign(port, self.nonce, jm.NOBODY)
        return SendJoin(port, mac, message)

    def sign(self, port: int, nonce: bytes, target: bytes) -> bytes:
        """Return a new BEACON or, when `target` is the 20-byte id of a HID, INVITE."""
        return jm.pack_beacon(
            self._key,
            credentials=self._credentials,
            instance=self.instance,
            nonce=nonce,
            interval_ms=int(self._interval(port) * 1000),
            mtu=self.ports.get(port, 1500),
            caps=self._caps,
            target=target,
        )

    def recent(self, nonce: bytes, now: float) -> bool:
        """Tell whether a JOIN may still answer a beacon with this nonce."""
        self.rotate(now)
        return nonce in (self.nonce, self._previous)

    def rotate(self, now: float) -> None:
        """Take a new nonce every NONCE_LIFE seconds; the one before it stays good as long again."""
        if self._nonce_until is None:
            self._nonce_until = now + NONCE_LIFE
        if now < self._nonce_until:
            return
        fresh = self._entropy(8)
        self._previous = self.nonce if now < self._nonce_until + NONCE_LIFE else fresh
        self.nonce = fresh
        self._nonce_until = now + NONCE_LIFE
        self.signed.clear()

    def _interval(self, port: int) -> float:
        if port in self._quiet:
            return max(self._usual, min(MAX_INTERVAL, self._usual * QUIET))
        return self._usual

    def _repeat(self, port: int, now: float) -> SendJoin:
        self._due[port] = now + self._interval(port) * self._rng.uniform(0.95, 1.05)
        return self.to(port, BROADCAST_MAC, now)
