"""Reliable flooding: every advertisement reaches every neighbour that should have it.

To each neighbour there is a queue of what it has not acknowledged; a window of it is sent at once
and again when no acknowledgement came for 100 ms, doubling to 1 s. One UPDATE serves all neighbours of a
port. What is to be said goes out when all that was received at once has been read: what the neighbours
have told each other by then need not be told, and one message carries what many brought. What slips
through (a forged ACK, a queue that was cleared) shows in the digests of the next HELLO, and a DIGEST then
tells both sides what to send and what to ask for.
"""

from __future__ import annotations

from collections.abc import Iterable

from xiatb.node import routing_messages as rm
from xiatb.node.adjacency import Neighbour
from xiatb.node.effects import Effect, SendRouting
from xiatb.node.lsa import GLOBAL_FROM, Lsa
from xiatb.node.lsdb import Lsdb

WINDOW = 64
RESEND_FIRST = 0.1
RESEND_LAST = 1.0
DIGEST_GAP = 0.5
_FIRST = bytes(41)
_LAST = b"\xff" * 41
_BEFORE_GLOBAL = bytes([GLOBAL_FROM[0] - 1]) + b"\xff" * 40


class Flooding:
    """Sends what is in `lsdb` to neighbours; `hid` is our 20-byte HID id, `ad` our AD's id."""

    def __init__(self, hid: bytes, ad: bytes, lsdb: Lsdb, pace: int = 1) -> None:
        """`pace` stretches the time to wait for an acknowledgement: busy neighbours take theirs."""
        self._hid = hid
        self._ad = ad
        self._lsdb = lsdb
        self._fresh: set[Neighbour] = set()
        self._resend_first, self._resend_last = RESEND_FIRST * pace, RESEND_LAST * pace
        self.stats = {"sent": 0, "resent": 0, "digests": 0}

    def may_have(self, neighbour: Neighbour, lsa_key: bytes) -> bool:
        """Tell whether an advertisement with this key may go to (or come from) a neighbour's AD."""
        return lsa_key >= GLOBAL_FROM or neighbour.member.ad.id == self._ad

    def queue(self, neighbour: Neighbour, lsa: Lsa) -> None:
        """Have `lsa` sent to `neighbour` until it is acknowledged."""
        if not neighbour.up or lsa.ack in neighbour.pending or not self.may_have(neighbour, lsa.key):
            return
        older = neighbour.by_key.get(lsa.key)
        if older is not None:
            neighbour.pending.pop(older, None)
            neighbour.sent.discard(older)
        neighbour.pending[lsa.ack] = lsa
        neighbour.by_key[lsa.key] = lsa.ack
        self._fresh.add(neighbour)

    def acknowledged(self, neighbour: Neighbour, ids: Iterable[bytes]) -> None:
        """The neighbour has the advertisements with these 8-byte ids."""
        progress = False
        for ack in ids:
            lsa = neighbour.pending.pop(ack, None)
            if lsa is not None:
                progress = True
                neighbour.sent.discard(ack)
                if neighbour.by_key.get(lsa.key) == ack:
                    del neighbour.by_key[lsa.key]
        if not neighbour.pending:
            neighbour.resend_at = None
        elif progress:
            neighbour.resend_at = None  # `flush` sets it anew
            self._fresh.add(neighbour)

    def owe(self, neighbour: Neighbour, ids: Iterable[bytes]) -> None:
        """Have the neighbour's advertisements with these 8-byte ids acknowledged."""
        neighbour.owed += ids
        self._fresh.add(neighbour)

    @property
    def waiting(self) -> bool:
        """Whether `flush` may have something to say."""
        return bool(self._fresh)

    def superseded(self, neighbour: Neighbour, lsa: Lsa) -> None:
        """The neighbour itself sent `lsa`: what we had for it under that key, if not newer, is moot."""
        ack = neighbour.by_key.get(lsa.key)
        if ack is not None and neighbour.pending[ack].seq <= lsa.seq:
            self.acknowledged(neighbour, (ack,))

    def digest(self, neighbour: Neighbour, now: float) -> list[Effect]:
        """Return DIGESTs of all that this neighbour should have."""
        neighbour.digest_sent = now
        self.stats["digests"] += 1
        after = _FIRST if neighbour.member.ad.id == self._ad else _BEFORE_GLOBAL
        rows = self._lsdb.rows(after, _LAST)
        pages = rm.pack_digests(self._hid, neighbour.member.hid.id, rows, after, _LAST)
        return [SendRouting(neighbour.port, page) for page in pages]

    def differs(self, neighbour: Neighbour, now: float) -> bool:
        """Whether the digests in the last HELLO call for a DIGEST: different, and nothing under way."""
        if not neighbour.up or neighbour.pending or now - neighbour.digest_sent < DIGEST_GAP:
            return False
        theirs_ad, theirs_global = neighbour.digests
        if theirs_global != self._lsdb.digest_global:
            return True
        return neighbour.member.ad.id == self._ad and theirs_ad != self._lsdb.digest_ad

    def compare(self, neighbour: Neighbour, digest: rm.Digest) -> list[Effect]:
        """Take a DIGEST: queue what the neighbour lacks, return REQUESTs for what we lack."""
        lsdb = self._lsdb
        for key, seq in lsdb.rows(digest.after, digest.upto):
            if digest.rows.get(key, -1) < seq and self.may_have(neighbour, key):
                lsa = lsdb.get(key)
                if lsa is not None:
                    self.queue(neighbour, lsa)
        wanted = [k for k, seq in digest.rows.items() if self.may_have(neighbour, k) and lsdb.wants(k, seq)]
        out: list[Effect] = []
        for start in range(0, len(wanted), rm.REQUEST_ROWS):
            part = wanted[start : start + rm.REQUEST_ROWS]
            request = rm.pack_request(self._hid, neighbour.member.hid.id, part)
            out.append(SendRouting(neighbour.port, request))
        return out

    def flush(self, now: float) -> list[Effect]:
        """Return the ACKs that are owed and the UPDATEs that the queues and their windows allow now."""
        out: list[Effect] = []
        by_port: dict[int, dict[bytes, Lsa]] = {}
        for neighbour in sorted(self._fresh, key=lambda n: (n.port, n.member.hid.id)):
            out += self._acks(neighbour)
            if not neighbour.up or not neighbour.pending:
                continue
            chosen = by_port.setdefault(neighbour.port, {})
            for ack, lsa in list(neighbour.pending.items()):
                if len(neighbour.sent) >= WINDOW:
                    break
                if self._lsdb.get(lsa.key) is not lsa:
                    self.acknowledged(neighbour, (ack,))  # expired or replaced: no longer to be told
                elif ack not in neighbour.sent:
                    neighbour.sent.add(ack)
                    chosen[ack] = lsa
            if neighbour.pending and neighbour.resend_at is None:
                neighbour.resend_delay = self._resend_first
                neighbour.resend_at = now + self._resend_first
        self._fresh.clear()
        for port, chosen in by_port.items():
            items = [(self._lsdb.age_ms(lsa.key, now), lsa) for lsa in chosen.values()]
            self.stats["sent"] += len(items)
            out += [SendRouting(port, message) for message in rm.pack_updates(self._hid, items)]
        return out

    def _acks(self, neighbour: Neighbour) -> list[Effect]:
        owed, neighbour.owed = neighbour.owed, []
        return [
            SendRouting(
                neighbour.port,
                rm.pack_ack(self._hid, neighbour.member.hid.id, owed[start : start + rm.ACK_ROWS]),
            )
            for start in range(0, len(owed), rm.ACK_ROWS)
        ]

    def tick(self, neighbours: Iterable[Neighbour], now: float) -> None:
        """Mark for sending again what was not acknowledged in time; `flush` then sends it."""
        for neighbour in neighbours:
            if neighbour.resend_at is not None and neighbour.resend_at <= now:
                self.stats["resent"] += len(neighbour.sent)
                neighbour.sent.clear()
                doubled = max(self._resend_first, neighbour.resend_delay) * 2
                neighbour.resend_delay = min(self._resend_last, doubled)
                neighbour.resend_at = now + neighbour.resend_delay
                self._fresh.add(neighbour)
