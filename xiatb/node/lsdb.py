"""The link-state database: the newest advertisement of each key, its age, and digests of it all.

Ages travel with the advertisements (milliseconds since they were made, as far as the routers on
the way know), so that one of a dead router expires everywhere at about the same time and is not
handed back and forth for ever. What expired is remembered for a while and not taken back.
"""

from __future__ import annotations

import hashlib
import heapq
from bisect import bisect_right
from collections.abc import Iterator

from xiatb.node.lsa import GLOBAL_FROM, Lsa

MAX_LSAS = 20_000
TOMBSTONE = 60.0
_MASK = (1 << 64) - 1


class Stored:
    """An advertisement in the database; `born` is the local time at which it was made."""

    __slots__ = ("lsa", "born", "expires")

    def __init__(self, lsa: Lsa, born: float) -> None:
        self.lsa = lsa
        self.born = born
        self.expires = born + lsa.lifetime


class Lsdb:
    """Advertisements by key. `digest_ad` and `digest_global` are order-free sums over (key, seq)."""

    def __init__(self) -> None:
        self.digest_ad = 0
        self.digest_global = 0
        self._stored: dict[bytes, Stored] = {}
        self._expiry: list[tuple[float, bytes]] = []
        self._gone: dict[bytes, tuple[int, float]] = {}
        self._sorted: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self._stored)

    def __iter__(self) -> Iterator[Lsa]:
        return (stored.lsa for stored in self._stored.values())

    def get(self, key: bytes) -> Lsa | None:
        """Return the advertisement of a 41-byte key, or None."""
        stored = self._stored.get(key)
        return None if stored is None else stored.lsa

    def age_ms(self, key: bytes, now: float) -> int:
        """Return the age of the advertisement of `key`, which must be there, in milliseconds."""
        return max(0, int((now - self._stored[key].born) * 1000))

    def wants(self, key: bytes, seq: int) -> bool:
        """Tell whether an advertisement with this key and sequence number would be news."""
        stored = self._stored.get(key)
        if stored is not None:
            return stored.lsa.seq < seq
        gone = self._gone.get(key)
        return (gone is None or seq > gone[0]) and len(self._stored) < MAX_LSAS

    def insert(self, lsa: Lsa, age_ms: int, now: float) -> Lsa | None:
        """Store a verified advertisement that `wants` asked for; return the one it replaces."""
        old = self._stored.get(lsa.key)
        if old is not None:
            self._digest(old.lsa)
        stored = self._stored[lsa.key] = Stored(lsa, now - age_ms / 1000)
        self._digest(lsa, +1)
        self._gone.pop(lsa.key, None)
        heapq.heappush(self._expiry, (stored.expires, lsa.key))
        if old is None:
            self._sorted = None
        return None if old is None else old.lsa

    def expire(self, now: float) -> list[Lsa]:
        """Drop what has reached its lifetime and return it."""
        out = []
        while self._expiry and self._expiry[0][0] <= now:
            due, key = heapq.heappop(self._expiry)
            stored = self._stored.get(key)
            if stored is None or stored.expires != due:
                continue
            del self._stored[key]
            self._digest(stored.lsa)
            self._gone[key] = (stored.lsa.seq, now + TOMBSTONE)
            self._sorted = None
            out.append(stored.lsa)
        while self._gone:
            first = next(iter(self._gone))
            if self._gone[first][1] > now:
                break
            del self._gone[first]
        return out

    def next_expiry(self) -> float | None:
        """Return when `expire` has something to look at, or None."""
        return self._expiry[0][0] if self._expiry else None

    def rows(self, after: bytes, upto: bytes) -> list[tuple[bytes, int]]:
        """Return (key, sequence number) of all with after < key <= upto, sorted."""
        if self._sorted is None:
            self._sorted = sorted(self._stored)
        low, high = bisect_right(self._sorted, after), bisect_right(self._sorted, upto)
        return [(key, self._stored[key].lsa.seq) for key in self._sorted[low:high]]

    def _digest(self, lsa: Lsa, sign: int = -1) -> None:
        data = lsa.key + lsa.seq.to_bytes(8, "big")
        part = int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest()[:8], "big")
        if lsa.key < GLOBAL_FROM:
            self.digest_ad = (self.digest_ad + sign * part) & _MASK
        else:
            self.digest_global = (self.digest_global + sign * part) & _MASK
