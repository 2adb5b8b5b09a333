"""The host's side of the join protocol: finds a router, attaches, notices that it has moved.

Sans-IO: 0x9991 payloads and `now` (monotonic seconds) in, effects out. A host has one
attachment at a time and keeps it until another one is accepted (make before break). What makes
it move: `kick` (the link came up, the kernel's notify-peers event), an INVITE, a beacon of
another router while its own is silent, a LEAVE of its router.

A beacon is only a hint where to send a JOIN: the proof is the ACCEPT, whose signature and
certificate are always checked and which answers this very JOIN. So the first hint is followed
unverified, which keeps the path from INVITE to locator at one signature made and two checked
(one for a router met before); while an attempt is under way further hints must verify, so that
forged ones cannot crowd out the true router.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import Random

from xiatb.errors import IdentityError, WireError
from xiatb.identity.keys import KeyPair
from xiatb.node import join_messages as jm
from xiatb.node import membership
from xiatb.node.attachment import EXPECTED, RETRY_FIRST, RETRY_LAST, SETTLING, Attachment, Attempt
from xiatb.node.delegation import invitation
from xiatb.node.effects import Effect, ForgetNeighbour, Locator, LocatorLost, Log, SendJoin, SetNeighbour
from xiatb.node.membership import MembershipCache
from xiatb.wire.xid import XID, XidType

MAX_ATTEMPTS = 4
BROADCAST_MAC = b"\xff" * 6


class HostJoin:
    """Join state of one host. `ports` maps port index to this host's MAC (6 bytes) there."""

    def __init__(
        self,
        hid_key: KeyPair,
        rng: Random,
        *,
        ports: Mapping[int, bytes] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        cache: MembershipCache | None = None,
    ) -> None:
        """`clock_ns` gives the time-based sequence numbers (wall clock, so that they grow over restarts)."""
        self.hid = hid_key.xid(XidType.HID)
        self.ports: dict[int, bytes] = dict(ports or {})
        self.attachment: Attachment | None = None
        self.closed = False
        self.stats = {"malformed": 0, "forged": 0, "joins": 0, "accepts": 0, "signed": 0, "verified": 0}
        self._key = hid_key
        self._rng = rng
        self._clock_ns = clock_ns
        self._cache = cache or MembershipCache()
        self._seq = 0
        self._attempts: dict[bytes, Attempt] = {}
        self._solicit_at: float | None = None
        self._solicit_delay = RETRY_FIRST
        self._delegated: Attempt | None = None  # signed in advance, answered where we shall be
        self._trusted: dict[bytes, bytes] = {}  # credentials -> the router's beacon verified last
        self._invited_by = b""
        self._effects: list[Effect] = []

    def effects(self) -> list[Effect]:
        """Return what to do since the last call, in order."""
        out, self._effects = self._effects, []
        return out

    def set_port(self, port: int, mac: bytes) -> None:
        """Tell that `port` exists and that this host's MAC there is `mac`."""
        self.ports[port] = mac

    @property
    def locator(self) -> tuple[XID, XID, int] | None:
        """(AD, router HID, port) of the present attachment, or None."""
        at = self.attachment
        return None if at is None else (at.member.ad, at.member.hid, at.port)

    # Events

    def kick(self, port: int, now: float) -> None:
        """The link of `port` came up or the guest was told that it moved: look around, unless others tell."""
        if self.closed:
            return
        at, wait = self.attachment, EXPECTED if self._delegated is not None else RETRY_FIRST
        if at is not None and at.port == port:
            if now < at.settled_at:
                return
            at.suspect = True
            at.refresh_at = min(at.refresh_at, now + wait)  # unless another router is found first
        if self._delegated is None:
            self._send(port, BROADCAST_MAC, jm.pack_solicit(self.hid.id))
        self._schedule_solicit(now, wait)

    def link_down(self, port: int, now: float) -> None:
        """The link of `port` went down: an attachment there is lost, the other ports are asked."""
        self._attempts = {key: a for key, a in self._attempts.items() if a.port != port}
        if self.attachment is not None and self.attachment.port == port:
            self._lose(now, f"link of port {port} is down")

    def delegate(self, invite: bytes) -> bytes:
        """A JOIN for the router of `invite`, which uses it when this host, a guest, has been moved there; its
        ACCEPT is then all that is needed. Replaces an earlier one. Raises WireError, IdentityError."""
        beacon = invitation(invite, self.hid, self._cache)
        port = min(self.ports, default=0) if self.attachment is None else self.attachment.port
        self._delegated = Attempt(beacon, port, BROADCAST_MAC, False)
        self._sign(self._delegated)
        return self._delegated.message

    def leave(self, now: float) -> None:
        """End the attachment (the host shuts down); tells the router. Nothing is joined after it."""
        self.closed = True
        self._attempts.clear()
        self._solicit_at = None
        if self.attachment is not None:
            self._send_leave(self.attachment)
            self._effects.append(LocatorLost(self.attachment.port))
            self.attachment = None

    def receive(self, port: int, src_mac: bytes, payload: bytes | bytearray | memoryview, now: float) -> None:
        """Take the payload of a 0x9991 frame that came in at `port` from `src_mac`. Never raises."""
        if self.closed:
            return
        try:
            message = jm.parse(payload)
            if isinstance(message, jm.Beacon):
                self._on_beacon(port, src_mac, message, now)
            elif isinstance(message, jm.Accept):
                self._on_accept(port, src_mac, message, now)
            elif isinstance(message, jm.Leave):
                self._on_leave(port, message, now)
        except WireError:
            self.stats["malformed"] += 1
        except IdentityError as error:
            self.stats["forged"] += 1
            self._effects.append(Log("warning", f"join message at port {port} refused: {error}"))

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        for key, attempt in list(self._attempts.items()):
            if attempt.due <= now:
                self._retry(key, attempt, now)
        at = self.attachment
        if at is not None:
            self._watch(at, now)
        if self._solicit_at is not None and self._solicit_at <= now:
            self._solicit(now)

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, or None."""
        due = [a.due for a in self._attempts.values()]
        at = self.attachment
        if at is not None:
            due.append(at.expires)
            if not self._refreshing(at):
                due.append(min(at.refresh_at, at.silent_at()))
        if self._solicit_at is not None:
            due.append(self._solicit_at)
        return min(due, default=None)

    # Beacons and invitations

    def _on_beacon(self, port: int, src_mac: bytes, beacon: jm.Beacon, now: float) -> None:
        if beacon.target not in (jm.NOBODY, self.hid.id):
            return
        if not beacon.caps & jm.Caps.ACCEPTS_HOSTS or port not in self.ports:
            return
        at = self.attachment
        ours = at is not None and at.port == port and at.beacon.credentials == beacon.credentials
        if at is not None and ours and beacon.target == jm.NOBODY:
            self._on_own_beacon(at, src_mac, beacon, now)
            return
        if ours and self._invited_by == beacon.raw:
            return  # the INVITE that led here, repeated
        running = self._attempts.get(beacon.credentials)
        if running is not None and running.port == port:
            if running.beacon.nonce == beacon.nonce or running.still_good(beacon):
                return
        elif at is not None and beacon.target == jm.NOBODY and not at.suspect and now < at.silent_at():
            return  # our own router is fine
        if self._attempts and not self._verified(beacon):
            raise IdentityError("a beacon's signature does not hold")
        if at is not None and not ours:
            at.refresh_at = max(at.refresh_at, now + SETTLING)
        self._start(beacon, port, src_mac, now, refresh=False)

    def _on_own_beacon(self, at: Attachment, src_mac: bytes, beacon: jm.Beacon, now: float) -> None:
        """The present router's beacon: unchanged bytes need no new check; a new instance needs a JOIN."""
        if not self._verified(beacon):
            raise IdentityError("a beacon's signature does not hold")
        restarted = beacon.instance != at.beacon.instance
        at.heard = now
        at.beacon = beacon
        if src_mac != at.mac:
            at.mac = src_mac
            self._effects.append(SetNeighbour(at.port, at.member.hid.key, src_mac))
            restarted = True
        running = self._attempts.get(beacon.credentials)
        if running is not None and running.beacon.nonce == beacon.nonce and not restarted:
            return
        if restarted or running is not None:
            refresh = not restarted and running is not None and running.refresh
            self._start(beacon, at.port, src_mac, now, refresh=refresh)
        elif at.suspect:
            at.suspect = False

    def _verified(self, beacon: jm.Beacon) -> bool:
        """Check certificate and signature, unless this very beacon was verified before."""
        if self._trusted.get(beacon.credentials) == beacon.raw:
            return True
        member = self._cache.check(beacon.credentials)
        self.stats["verified"] += 1
        if not jm.authentic(beacon, member.public):
            return False
        self._trusted.pop(beacon.credentials, None)
        if len(self._trusted) >= 64:
            del self._trusted[next(iter(self._trusted))]
        self._trusted[beacon.credentials] = beacon.raw
        return True

    # Attempts

    def _start(self, beacon: jm.Beacon, port: int, mac: bytes, now: float, *, refresh: bool) -> None:
        attempt = Attempt(beacon, port, mac, refresh)
        if beacon.credentials not in self._attempts and len(self._attempts) >= MAX_ATTEMPTS:
            del self._attempts[next(iter(self._attempts))]
        self._attempts[beacon.credentials] = attempt
        self._sign(attempt)
        self._transmit(attempt, now)

    def _sign(self, attempt: Attempt) -> None:
        """Give the attempt its JOIN, with a sequence number above all that we used."""
        beacon = attempt.beacon
        member = self._cache.known(beacon.credentials) or membership.claimed(beacon.credentials)
        self._seq = max(self._seq + 1, self._clock_ns())
        attempt.seq = self._seq
        attempt.message = jm.pack_join(
            self._key,
            router=member.hid.id,
            ad=member.ad.id,
            nonce=beacon.nonce,
            seq=attempt.seq,
            mac=self.ports.get(attempt.port, bytes(6)),
            flags=jm.FLAG_REFRESH if attempt.refresh else 0,
        )
        self.stats["signed"] += 1

    def _transmit(self, attempt: Attempt, now: float) -> None:
        self.stats["joins"] += 1
        attempt.tries += 1
        attempt.due = now + attempt.delay * self._rng.uniform(0.9, 1.1)
        attempt.delay = min(RETRY_LAST, attempt.delay * 2)
        self._send(attempt.port, attempt.mac, attempt.message)

    def _retry(self, key: bytes, attempt: Attempt, now: float) -> None:
        if attempt.tries < Attempt.MOST_TRIES:
            self._transmit(attempt, now)
            return
        del self._attempts[key]
        at = self.attachment
        if at is not None and at.beacon.credentials == key and at.port == attempt.port:
            self._lose(now, f"router {at.member.hid} does not answer")
        elif at is None and self._solicit_at is None:
            self._schedule_solicit(now, RETRY_FIRST)

    def _on_accept(self, port: int, src_mac: bytes, accept: jm.Accept, now: float) -> None:
        waiting = (self._attempts.get(accept.credentials), self._delegated)
        attempt = next((a for a in waiting if a is not None and a.answered_by(accept, port)), None)
        if attempt is None or accept.host != self.hid.id:
            return
        member = self._cache.check(accept.credentials)
        self.stats["verified"] += 1
        if not jm.authentic(accept, member.public):
            raise IdentityError(f"an ACCEPT is not signed by {member.hid}")
        if attempt is self._delegated:
            self._delegated = None
            if accept.code != jm.Code.ACCEPTED:
                return
        if accept.code == jm.Code.STALE_SEQUENCE:
            self._lift_sequence(attempt, accept.last_seq, now)
            return
        self._attempts.pop(accept.credentials, None)
        if accept.code != jm.Code.ACCEPTED:
            self._effects.append(Log("warning", f"{member.hid} refuses to attach us (code {accept.code})"))
            if self.attachment is None:
                self._schedule_solicit(now, RETRY_LAST)
            return
        attempt.mac = src_mac
        self._attach(Attachment(member, attempt, accept, now), attempt, now)

    def _lift_sequence(self, attempt: Attempt, last_seq: int, now: float) -> None:
        """The router saw a later number than ours (our clock went back): go on above it, within reason."""
        if not attempt.seq <= last_seq <= attempt.seq + Attempt.MAX_LIFT_NS:
            return
        self._seq = last_seq
        self._sign(attempt)
        self._transmit(attempt, now)

    def _attach(self, new: Attachment, attempt: Attempt, now: float) -> None:
        old = self.attachment
        self.attachment = new
        if attempt.beacon.target != jm.NOBODY:
            self._invited_by = attempt.beacon.raw
        self.stats["accepts"] += 1
        self._solicit_at = None
        same = old is not None and (old.member, old.port) == (new.member, new.port)
        if old is not None and same and attempt.refresh:
            if (old.mac, old.mtu, old.suspect) == (new.mac, new.mtu, False):
                return
        else:
            self._settle(attempt, now)
        if old is not None and not same:
            self._effects.append(ForgetNeighbour(old.port, old.member.hid.key))
        self._effects.append(SetNeighbour(new.port, new.member.hid.key, new.mac))
        self._effects.append(
            Locator(new.member.ad, new.member.hid, new.port, new.mac, new.mtu, not same, new.gateway_ip)
        )
        if old is not None and old.member.hid != new.member.hid and not attempt.delegated:
            self._send_leave(old)

    def _settle(self, attempt: Attempt, now: float) -> None:
        """One router has us: give the other attempts up.

        If one of them carries a later JOIN, its router may have taken us too and would win by the
        sequence number, so the router that we chose gets a JOIN that is later still.
        """
        later = any(other.seq > attempt.seq for other in self._attempts.values())
        self._attempts = {}
        if later:
            self._start(attempt.beacon, attempt.port, attempt.mac, now, refresh=False)

    # Losing the router

    def _on_leave(self, port: int, leave: jm.Leave, now: float) -> None:
        """The router lets us go. It must name its present instance and, when aimed at us, our JOIN."""
        at = self.attachment
        if at is None or at.port != port or not leave.from_router or leave.public != at.member.public:
            return
        if leave.peer not in (jm.NOBODY, self.hid.id) or leave.instance != at.beacon.instance:
            return
        if leave.peer == self.hid.id and leave.seq != at.seq:
            return
        self.stats["verified"] += 1
        if not jm.authentic(leave, at.member.public):
            raise IdentityError(f"a LEAVE is not signed by {at.member.hid}")
        self._lose(now, f"{at.member.hid} ended the attachment")

    def _lose(self, now: float, why: str) -> None:
        if (at := self.attachment) is None:
            return
        self.attachment = None
        self._attempts.pop(at.beacon.credentials, None)
        self._effects += [
            Log("info", f"locator lost: {why}"),
            ForgetNeighbour(at.port, at.member.hid.key),
            LocatorLost(at.port),
        ]
        self._solicit_delay = RETRY_FIRST
        self._solicit(now)

    def _refreshing(self, at: Attachment) -> bool:
        return at.beacon.credentials in self._attempts

    def _watch(self, at: Attachment, now: float) -> None:
        if now >= at.expires:
            self._lose(now, f"attachment to {at.member.hid} expired")
        elif not self._refreshing(at) and now >= min(at.refresh_at, at.silent_at()):
            self._start(at.beacon, at.port, at.mac, now, refresh=True)
            if now >= at.silent_at():
                self._schedule_solicit(now, 0.0)

    def _send_leave(self, at: Attachment) -> None:
        self._seq = max(self._seq + 1, self._clock_ns())
        self.stats["signed"] += 1
        leave = jm.pack_leave(self._key, from_router=False, peer=at.member.hid.id, seq=self._seq)
        self._send(at.port, at.mac, leave)

    # Soliciting

    def _schedule_solicit(self, now: float, delay: float) -> None:
        self._solicit_delay = RETRY_FIRST
        self._solicit_at = now + delay

    def _solicit(self, now: float) -> None:
        """Ask for beacons at all ports; goes on, ever more slowly, while there is no good router."""
        at = self.attachment
        if at is not None and not at.suspect and now < at.silent_at():
            self._solicit_at = None
            return
        solicit = jm.pack_solicit(self.hid.id)
        for port in self.ports:
            self._send(port, BROADCAST_MAC, solicit)
        self._solicit_at = now + self._solicit_delay * self._rng.uniform(0.9, 1.1)
        self._solicit_delay = min(RETRY_LAST, self._solicit_delay * 2)

    def _send(self, port: int, mac: bytes, payload: bytes) -> None:
        self._effects.append(SendJoin(port, mac, payload))
