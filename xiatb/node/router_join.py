"""The router's side of the join protocol: beacons, invitations, attached hosts and their ageing.

Sans-IO: 0x9991 payloads and `now` (monotonic seconds) in, effects out. A JOIN is taken when it is
for this router and AD, carries a nonce of ours that is still fresh, names the MAC it came from,
has a sequence number above all seen of that HID, and is signed by the key behind the HID. A
stale nonce is answered by a beacon, a stale sequence number by an ACCEPT with that verdict.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple

from xiatb.errors import IdentityError, WireError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.node import join_messages as jm
from xiatb.node.beacons import BROADCAST_MAC, Beacons
from xiatb.node.effects import Effect, ForgetNeighbour, HostJoined, HostLeft, Log, SendJoin, SetNeighbour
from xiatb.node.membership import pack_credentials
from xiatb.wire.xid import XID, XidType

INVITE_FIRST = 0.02
INVITE_LAST = 0.5  # a tap whose guest is not running yet queues them all
MAX_HOSTS = 4096
MAX_REMEMBERED = 16384
# Answers and signature checks that unknown senders can cause, per port and second.
ANSWER_RATE = 200.0


class JoinConfig(NamedTuple):
    """Times in seconds: beacon interval, refresh asked of hosts, attachment life (about 3 missed)."""

    beacon: float = 1.0
    refresh: float = 4.0
    lifetime: float = 14.0
    expect_for: float = 3600.0

    def paced(self, pace: int) -> JoinConfig:
        """Beacons and refreshes `pace` times as rare, attachments that live as much longer."""
        return self._replace(
            beacon=self.beacon * pace, refresh=self.refresh * pace, lifetime=self.lifetime * pace
        )


class AttachedHost:
    """One host at this router; `record` is its signed JOIN, `accept` our answer to it."""

    __slots__ = ("hid", "port", "mac", "seq", "nonce", "record", "accept", "expires")

    def __init__(self, hid: XID, port: int, join: jm.Join, accept: bytes, expires: float) -> None:
        self.hid = hid
        self.port = port
        self.mac = join.mac
        self.seq = join.seq
        self.nonce = join.nonce
        self.record = join.raw
        self.accept = accept
        self.expires = expires


class _Expectation:
    """An INVITE that goes out at `port` until its host joins or `until` passes."""

    __slots__ = ("port", "nonce", "message", "due", "delay", "until")

    def __init__(self, port: int, nonce: bytes, message: bytes, now: float, until: float) -> None:
        self.port = port
        self.nonce = nonce
        self.message = message
        self.due = now
        self.delay = INVITE_FIRST
        self.until = until


class _Bucket:
    """A token bucket of one second's worth: bounds work done for senders not yet proved."""

    __slots__ = ("tokens", "at")

    def __init__(self, now: float) -> None:
        self.tokens = ANSWER_RATE
        self.at = now

    def take(self, now: float) -> bool:
        self.tokens = min(ANSWER_RATE, self.tokens + (now - self.at) * ANSWER_RATE)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class RouterJoin:
    """Attachment service of one router on its ports (`ports`: index -> MTU in bytes)."""

    def __init__(
        self,
        hid_key: KeyPair,
        ad: XID,
        ad_public: bytes,
        cert: bytes,
        rng: Random,
        *,
        ports: Mapping[int, int] | None = None,
        caps: int = jm.Caps.ACCEPTS_HOSTS,
        config: JoinConfig | None = None,
        gateway_ip: bytes = jm.NO_IP,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`ad_public` (32 bytes) and `cert` (64 bytes, membership.issue) prove that we belong to `ad`.

        `gateway_ip` (4 bytes) is told to hosts.

        `rng` jitters timers; nonces come from `entropy`, since they must differ after a restart.
        """
        self.hid = hid_key.xid(XidType.HID)
        self.ad = ad
        self.hosts: dict[bytes, AttachedHost] = {}
        self.stats = {"malformed": 0, "forged": 0, "replayed": 0, "limited": 0, "joins": 0}
        self._key = hid_key
        self._credentials = pack_credentials(hid_key.public, ad_public, cert)
        self._config = config or JoinConfig()
        self._gateway_ip = gateway_ip
        self._entropy = entropy
        self._beacons = Beacons(
            hid_key,
            self._credentials,
            rng,
            ports=ports or {},
            caps=caps,
            interval=self._config.beacon,
            entropy=entropy,
        )
        self._buckets: dict[int, _Bucket] = {}
        self._last_seq: dict[bytes, int] = {}
        self._expected: dict[bytes, _Expectation] = {}
        self._next_expiry: float | None = None
        self._effects: list[Effect] = []

    def effects(self) -> list[Effect]:
        """Return what to do since the last call, in order."""
        out, self._effects = self._effects, []
        return out

    # Ports

    def link_up(self, port: int, now: float, *, mtu: int | None = None) -> None:
        """The link of `port` is up: a beacon at once, then one each interval. Call for each port at start."""
        self._effects.append(self._beacons.begin(port, now, mtu))

    def link_down(self, port: int, now: float) -> None:
        """The link of `port` is down: no beacons; the hosts there age out unless they come back."""
        self._beacons.end(port)

    def router_at(self, port: int, present: bool, now: float) -> None:
        """A router is at the other end of the link of `port`, or is no longer: beacons for nobody are few.

        A host that comes nevertheless asks for a beacon, and makes them frequent again by joining."""
        if present and not any(host.port == port for host in self.hosts.values()):
            self._beacons.hush(port)
        elif not present:
            self._beacons.wake(port, now)

    def close(self, now: float) -> None:
        """The router shuts down: tell the hosts at all ports to look for another one."""
        leave = jm.pack_leave(self._key, from_router=True, instance=self._beacons.instance)
        for port in self._beacons.ports:
            self._effects.append(SendJoin(port, BROADCAST_MAC, leave))
        self._beacons.end_all()
        self._expected.clear()

    # Attached hosts

    def expect(self, hid: XID, port: int, now: float) -> None:
        """Invite the host `hid` at `port` at once and on a short timer, until it joins there.

        A guest that resumes finds the INVITE waiting. Its next JOIN yields HostJoined even when
        the host was attached here before. Called again, it invites at once and starts the timers
        anew. Given up after `config.expect_for` seconds.
        """
        self._beacons.ports.setdefault(port, 1500)
        known = self._expected.get(hid.id)
        nonce = known.nonce if known is not None and known.port == port else self._entropy(8)
        message = self._beacons.sign(port, nonce, hid.id)
        self._expected[hid.id] = _Expectation(port, nonce, message, now, now + self._config.expect_for)
        self._invite(now)

    def invitation(self, hid: XID, port: int, now: float) -> bytes:
        """An INVITE for `hid` at `port` that is handed over in another way than by that port: for a host
        that is to sign a JOIN before it comes. A JOIN may answer it as long as one that was sent."""
        nonce = self._entropy(8)
        message = self._beacons.sign(port, nonce, hid.id)
        expected = _Expectation(port, nonce, message, now, now + self._config.expect_for)
        expected.due = expected.until
        self._expected[hid.id] = expected
        return message

    def arrival(self, port: int, join: jm.Join, now: float, silent_until: float) -> None:
        """Attach a host by a JOIN that came before it, if it is good. Nothing is sent, no beacon before
        `silent_until` either: a guest that does not run yet would find it in front of its clients' requests.
        `accept_again` tells it."""
        before = len(self._effects)
        self.receive(port, join.mac, join.raw, now)
        self._effects[before:] = [one for one in self._effects[before:] if not isinstance(one, SendJoin)]
        self._beacons.put_off(port, silent_until)

    def accept_again(self, hid: XID) -> bool:
        """Repeat the ACCEPT of a host that is attached here; False when it is not."""
        host = self.hosts.get(hid.id)
        if host is not None:
            self._effects.append(SendJoin(host.port, host.mac, host.accept))
        return host is not None

    def gone(self, hid: XID) -> None:
        """`hid` has moved: end its attachment here, not an expectation that it comes back."""
        host = self.hosts.get(hid.id)
        if host is not None:
            self._remove(host, "moved")

    def detach(self, hid: XID, now: float, *, tell: bool = False) -> None:
        """Forget `hid` (also an expectation of it); with `tell` it is sent a LEAVE."""
        self._expected.pop(hid.id, None)
        host = self.hosts.get(hid.id)
        if host is None:
            return
        if tell:
            leave = jm.pack_leave(
                self._key, from_router=True, peer=hid.id, instance=self._beacons.instance, seq=host.seq
            )
            self._effects.append(SendJoin(host.port, host.mac, leave))
        self._remove(host, "detached")

    def moved(self, hid: XID, seq: int) -> None:
        """Routing knows a newer attachment of `hid`: drop ours if older, refuse JOINs up to `seq`."""
        host = self.hosts.get(hid.id)
        if host is not None and host.seq < seq:
            self._remove(host, "moved")
        self._remember(hid.id, seq)

    def _remove(self, host: AttachedHost, reason: str) -> None:
        del self.hosts[host.hid.id]
        self._effects.append(ForgetNeighbour(host.port, host.hid.key))
        self._effects.append(HostLeft(host.hid, host.port, reason))

    def _remember(self, host: bytes, seq: int) -> None:
        """Keep the highest sequence number seen of each HID; the longest unheard go first."""
        seq = max(seq, self._last_seq.pop(host, 0))
        if len(self._last_seq) >= MAX_REMEMBERED:
            del self._last_seq[next(iter(self._last_seq))]
        self._last_seq[host] = seq

    # Input

    def receive(self, port: int, src_mac: bytes, payload: bytes | bytearray | memoryview, now: float) -> None:
        """Take the payload of a 0x9991 frame that came in at `port` from `src_mac`. Never raises."""
        try:
            message = jm.parse(payload)
            if isinstance(message, jm.Join):
                self._on_join(port, bytes(src_mac), message, now)
            elif isinstance(message, jm.Solicit):
                if self._may_answer(port, now):
                    self._effects.append(self._beacons.to(port, bytes(src_mac), now))
            elif isinstance(message, jm.Leave):
                self._on_leave(port, message, now)
        except WireError:
            self.stats["malformed"] += 1
        except IdentityError as error:
            self.stats["forged"] += 1
            self._effects.append(Log("warning", f"join message at port {port} refused: {error}"))

    def _may_answer(self, port: int, now: float) -> bool:
        bucket = self._buckets.get(port)
        if bucket is None:
            bucket = self._buckets[port] = _Bucket(now)
        if bucket.take(now):
            return True
        self.stats["limited"] += 1
        return False

    def _on_join(self, port: int, src_mac: bytes, join: jm.Join, now: float) -> None:
        hid = keys.xid_of(join.public, XidType.HID)
        known = self.hosts.get(hid.id)
        if known is not None and known.record == join.raw and known.port == port:
            if self._may_answer(port, now):
                self._effects.append(SendJoin(port, known.mac, known.accept))
            return
        if not self._may_answer(port, now):
            return
        ours = join.router == self.hid.id and join.ad == self.ad.id
        if not ours or not self._fresh(join.nonce, hid, known, now):
            self._effects.append(self._beacons.to(port, src_mac, now))
            return
        if join.mac != src_mac:
            raise IdentityError(f"a JOIN of {hid} for another MAC than it came from")
        if not jm.authentic(join, join.public):
            raise IdentityError(f"a JOIN is not signed by {hid}")
        last = self._last_seq.get(hid.id, 0)
        if join.seq <= last:
            self.stats["replayed"] += 1
            self._effects.append(SendJoin(port, src_mac, self._verdict(port, hid, join, last)))
            return
        self._accept(port, hid, join, known, now)

    def _fresh(self, nonce: bytes, hid: XID, known: AttachedHost | None, now: float) -> bool:
        """Whether a JOIN's nonce is of a recent beacon, of our INVITE to `hid` or of its attachment."""
        expected = self._expected.get(hid.id)
        return (
            self._beacons.recent(nonce, now)
            or (expected is not None and nonce == expected.nonce)
            or (known is not None and nonce == known.nonce)
        )

    def _accept(self, port: int, hid: XID, join: jm.Join, known: AttachedHost | None, now: float) -> None:
        self._remember(hid.id, join.seq)
        if known is None and len(self.hosts) >= MAX_HOSTS:
            self._effects.append(SendJoin(port, join.mac, self._verdict(port, hid, join, 0, jm.Code.FULL)))
            return
        accept = self._verdict(port, hid, join, 0, jm.Code.ACCEPTED)
        expires = now + self._config.lifetime
        host = self.hosts[hid.id] = AttachedHost(hid, port, join, accept, expires)
        if self._next_expiry is None or expires < self._next_expiry:
            self._next_expiry = expires
        self.stats["joins"] += 1
        self._beacons.wake(port, now)
        expected = self._expected.get(hid.id)
        if expected is not None and expected.port == port:
            del self._expected[hid.id]
        else:
            expected = None
        self._effects.append(SendJoin(port, join.mac, accept))
        unmoved = known is not None and (known.port, known.mac) == (port, join.mac)
        if unmoved and join.flags & jm.FLAG_REFRESH and expected is None:
            return
        if known is not None and known.port != port:
            self._effects.append(ForgetNeighbour(known.port, hid.key))
        self._effects.append(SetNeighbour(port, hid.key, join.mac))
        self._effects.append(HostJoined(hid, port, host.mac, host.seq, host.record))

    def _verdict(
        self, port: int, hid: XID, join: jm.Join, last: int, code: jm.Code = jm.Code.STALE_SEQUENCE
    ) -> bytes:
        return jm.pack_accept(
            self._key,
            credentials=self._credentials,
            host=hid.id,
            seq=join.seq,
            code=code,
            last_seq=last,
            refresh_ms=int(self._config.refresh * 1000),
            lifetime_ms=int(self._config.lifetime * 1000),
            mtu=self._beacons.ports.get(port, 1500),
            gateway_ip=self._gateway_ip,
        )

    def _on_leave(self, port: int, leave: jm.Leave, now: float) -> None:
        if leave.from_router or leave.peer != self.hid.id:
            return
        host = self.hosts.get(keys.xid_of(leave.public, XidType.HID).id)
        if host is None or host.port != port or leave.seq <= host.seq:
            return
        if not self._may_answer(port, now):
            return
        if not jm.authentic(leave, leave.public):
            raise IdentityError(f"a LEAVE is not signed by {host.hid}")
        self._remember(host.hid.id, leave.seq)
        self._remove(host, "left")

    # Beacons and timers

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        self._effects += self._beacons.tick(now)
        if self._expected:
            self._invite(now)
        if self._next_expiry is not None and self._next_expiry <= now:
            for host in [h for h in self.hosts.values() if h.expires <= now]:
                self._remove(host, "timeout")
            self._next_expiry = min((h.expires for h in self.hosts.values()), default=None)

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, or None."""
        due = [e.due for e in self._expected.values()]
        due += [moment for moment in (self._beacons.next_deadline(), self._next_expiry) if moment is not None]
        return min(due, default=None)

    def _invite(self, now: float) -> None:
        for host, expected in list(self._expected.items()):
            if expected.due > now:
                continue
            if now >= expected.until:
                del self._expected[host]
                self._effects.append(Log("warning", f"HID:{host.hex()} was invited but did not join"))
                continue
            self._effects.append(SendJoin(expected.port, BROADCAST_MAC, expected.message))
            expected.due = now + expected.delay
            expected.delay = min(INVITE_LAST, expected.delay * 2)
