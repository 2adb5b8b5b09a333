"""What a host keeps about the router it is joined to and about a JOIN that is under way."""

from __future__ import annotations

from xiatb.node.join_messages import NOBODY, Accept, Beacon
from xiatb.node.membership import Membership

RETRY_FIRST = 0.02
RETRY_LAST = 0.5
EXPECTED = 0.5
"""Seconds that a guest with a delegation waits for the ACCEPT of the router where it now is before it looks
around by itself. To look around at once costs its processor what its clients' requests need, and its old
router's attachment would be refreshed: its sessions would move to where they are."""
SILENT_BEACONS = 2.5
FRESH_TRIES = 3
SETTLING = 1.0
"""Seconds after an attachment by invitation in which announcements of a move are echoes of the one that led
to it: QEMU announces a resumed guest five times within 0.55 s."""


class Attachment:
    """The router that a host is joined to, and until when."""

    __slots__ = ("member", "port", "mac", "beacon", "heard", "suspect", "refresh_at", "expires", "seq", "mtu",
                 "gateway_ip", "settled_at")  # fmt: skip

    def __init__(self, member: Membership, attempt: Attempt, accept: Accept, now: float) -> None:
        self.member = member
        self.port = attempt.port
        self.mac = attempt.mac
        self.beacon = attempt.beacon
        self.seq = accept.seq
        self.mtu = accept.mtu
        self.gateway_ip = accept.gateway_ip
        self.heard = now
        self.suspect = False
        self.settled_at = now + SETTLING if attempt.beacon.target != NOBODY else now
        self.refresh_at = now + accept.refresh_ms / 1000
        self.expires = now + accept.lifetime_ms / 1000

    def silent_at(self) -> float:
        """When the router counts as silent (2.5 beacon intervals after it was last heard)."""
        return self.heard + SILENT_BEACONS * self.beacon.interval_ms / 1000


class Attempt:
    """One JOIN under way: retransmitted unchanged from 20 ms on, doubling to 500 ms, MOST_TRIES times.

    A router that saw a later sequence number than our clock gives may lift ours by at most MAX_LIFT_NS.
    """

    MOST_TRIES = 8
    MAX_LIFT_NS = 400 * 86400 * 10**9

    __slots__ = ("beacon", "port", "mac", "message", "seq", "delay", "due", "tries", "refresh")

    def __init__(self, beacon: Beacon, port: int, mac: bytes, refresh: bool) -> None:
        self.beacon = beacon
        self.port = port
        self.mac = mac
        self.refresh = refresh
        self.message = b""
        self.seq = 0
        self.delay = RETRY_FIRST
        self.due = 0.0
        self.tries = 0

    def still_good(self, beacon: Beacon) -> bool:
        """Whether this attempt's own nonce will do, so that `beacon` is no reason for another JOIN.

        A router instance gives one nonce in beacons and another in INVITEs, and takes both. Two different
        nonces of one kind mean that the first is no longer good.
        """
        same_kind = (self.beacon.target == NOBODY) == (beacon.target == NOBODY)
        return not same_kind and self.beacon.instance == beacon.instance and self.tries <= FRESH_TRIES

    @property
    def delegated(self) -> bool:
        """Whether this JOIN was never sent from here: the host was moved, its old router is out of reach."""
        return self.tries == 0

    def answered_by(self, accept: Accept, port: int) -> bool:
        """Whether an ACCEPT that came in at `port` is of the router of this JOIN and of its number."""
        return (accept.credentials, accept.seq, port) == (self.beacon.credentials, self.seq, self.port)
