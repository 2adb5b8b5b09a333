"""What went over the memory channels of one migration, page by page: counts of each pass, and digests by
which both daemons find out whether every page arrived as it was sent.

A ledger is filled by the parsers of QEMU's streams (`qemustream`, `multifdstream`, `returnpath`), at the
source and at the destination alike. Each page has the sum (modulo 2**64) of the digests of all its
versions: it does not depend on the order in which several channels were read. A digest is the first eight
bytes of the SHA-1 of what was sent; SHA-1 because a page's CID is made of it (xia.md). It finds faults, not
forgers: those are kept out by the channels' encryption.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha1, sha256
from typing import Any, Final

PAGE: Final = 4096
REGION_PAGES: Final = 256
"""Pages under one digest of a summary: 1 MiB of guest memory, more for large guests."""
MAX_REGIONS: Final = 2048
"""Digests in a summary, so that it fits into one control message."""
SETTLE_NS: Final = 200_000_000
"""How long after a pass's event its first part may be seen at the latest."""
MAX_CONTENTS: Final = 1 << 20
"""Distinct page contents remembered; beyond them `repeated` is a lower bound."""
MAX_WAITING_FAULTS: Final = 1 << 16
MAX_PARTS: Final = 1 << 16
"""QEMU makes some tens a second. In what comes after so many passes are not told apart any more: a part is 13
bytes in the stream and some hundred here, and the stream is a peer's."""

_MASK = (1 << 64) - 1
_ZERO_DIGEST = int.from_bytes(sha1(bytes(PAGE)).digest()[:8], "big")  # noqa: S324 - see the module's text


@dataclass(slots=True)
class Pass:
    """Pages of one pass over memory.

    zero, normal (whole), xbzrle (a difference) say how a page was sent. resent: pages that had been sent
    before; unchanged: those of them that were the same as the last time; repeated: whole pages whose content
    had been sent before, at whatever address.
    """

    zero: int = 0
    normal: int = 0
    xbzrle: int = 0
    repeated: int = 0
    resent: int = 0
    unchanged: int = 0

    def as_dict(self) -> dict[str, int]:
        """For the result file."""
        return {one.name: int(getattr(self, one.name)) for one in fields(self)}

    def copy(self) -> Pass:
        """The counts as they are now."""
        return Pass(**self.as_dict())

    def since(self, earlier: Pass) -> Pass:
        """What was counted after `earlier`."""
        mine, theirs = self.as_dict(), earlier.as_dict()
        return Pass(**{name: mine[name] - theirs[name] for name in mine})


@dataclass
class Block:
    """One RAM block of the guest: its place in the stream's list and its size in bytes."""

    name: str
    number: int
    size: int
    sums: array[int] = field(repr=False)
    last: array[int] = field(repr=False)


@dataclass(slots=True)
class Part:
    """Where a part of the RAM section begins: when it was seen, what was counted before, whether the page
    order jumped back there. Passes begin at parts, because QEMU takes a new dirty bitmap only between
    them."""

    t: int
    before: Pass
    wrapped: bool = False


class PageLedger:
    """Pages of one migration. `clock` gives monotonic nanoseconds."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.totals = Pass()
        self.blocks: dict[str, Block] = {}
        self.parts: list[Part] = []
        self.events: list[int] = []
        self.faults: list[int] = []
        """Nanoseconds from each page request of a post-copy destination to the page; see `requested`."""
        self._clock = clock
        self._contents: set[int] = set()
        self._place = (-1, -1)
        self._fresh = False
        self._requests: dict[tuple[str, int], int] = {}

    def declare(self, name: str, size: int) -> Block:
        """A RAM block of `size` bytes, named by the stream's list; a name that is known stays as it is."""
        known = self.blocks.get(name)
        if known is not None:
            return known
        zeros = bytes(8 * -(-size // PAGE))
        block = Block(name, len(self.blocks), size, array("Q", zeros), array("Q", zeros))
        self.blocks[name] = block
        return block

    def begin_part(self) -> None:
        """A part of the main channel's RAM section begins."""
        if len(self.parts) < MAX_PARTS:
            self.parts.append(Part(self._clock(), self.totals.copy()))
            self._fresh = True

    def begin_pass(self, t: int) -> None:
        """QEMU's own event: a pass after the first began at `t` (monotonic nanoseconds)."""
        self.events.append(t)

    def zero(self, block: Block, offset: int) -> None:
        """The page at `offset` bytes of `block` is zero. Raises IndexError beyond the block's end."""
        self.totals.zero += 1
        self._note(block, offset, _ZERO_DIGEST)

    def whole(self, block: Block, offset: int, data: bytes | bytearray | memoryview) -> None:
        """The page at `offset` bytes of `block` has this content. Raises IndexError beyond the end."""
        digest = int.from_bytes(sha1(data).digest()[:8], "big")  # noqa: S324 - see the module's text
        self.totals.normal += 1
        contents = self._contents
        if digest in contents:
            self.totals.repeated += 1
        elif len(contents) < MAX_CONTENTS:
            contents.add(digest)
        self._note(block, offset, digest)

    def delta(self, block: Block, offset: int, data: bytes | bytearray | memoryview) -> None:
        """The page at `offset` bytes of `block` changed by this xbzrle record. Raises IndexError."""
        digest = int.from_bytes(sha1(data).digest()[:8], "big")  # noqa: S324 - see the module's text
        self.totals.xbzrle += 1
        self._note(block, offset, digest | 1 << 63)

    def _note(self, block: Block, offset: int, digest: int) -> None:
        at = offset >> 12
        digest = digest or 1
        block.sums[at] = (block.sums[at] + digest) & _MASK
        before = block.last[at]
        if before:
            self.totals.resent += 1
            if before == digest:
                self.totals.unchanged += 1
        block.last[at] = digest
        if self._fresh:
            self._fresh = False
            self.parts[-1].wrapped = (block.number, offset) <= self._place
        self._place = (block.number, offset)
        if self._requests:
            asked = self._requests.pop((block.name, offset), None)
            if asked is not None:
                self.faults.append(self._clock() - asked)

    def requested(self, block: str, offset: int, size: int) -> None:
        """A post-copy destination asks for `size` bytes at `offset` of `block` (its return path)."""
        now = self._clock()
        for at in range(offset, offset + min(size, PAGE * 16), PAGE):
            if len(self._requests) < MAX_WAITING_FAULTS:
                self._requests.setdefault((block, at), now)

    def passes(self) -> list[Pass]:
        """Pages of each pass.

        A pass begins at the first part seen after its event at which the page order jumps back, at the latest
        `SETTLE_NS` after the event; a stream without events is cut at every jump.
        """
        cuts: list[Pass] = []
        reached = -1
        for t in self.events:
            later = [i for i, part in enumerate(self.parts) if part.t >= t and i > reached]
            wrapped = [i for i in later if self.parts[i].wrapped and self.parts[i].t <= t + SETTLE_NS]
            chosen = (wrapped or later)[:1]
            if chosen:
                reached = chosen[0]
            cuts.append(self.parts[chosen[0]].before if chosen else self.totals)
        if not self.events:
            cuts = [part.before for part in self.parts if part.wrapped]
        edges = [Pass(), *cuts, self.totals]
        return [high.since(low) for low, high in zip(edges, edges[1:], strict=False)]

    def fault_summary(self) -> dict[str, float | int]:
        """Page requests of a post-copy destination: how many, and the milliseconds until the page came."""
        waits = sorted(self.faults)
        if not waits:
            return {"count": 0}

        def at(share: float) -> float:
            return round(waits[min(len(waits) - 1, int(share * len(waits)))] / 1e6, 3)

        return {"count": len(waits), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}

    @property
    def region(self) -> int:
        """Pages under one digest of `summary`; it follows from the sizes of the blocks."""
        pages = sum(len(block.sums) for block in self.blocks.values())
        step = REGION_PAGES
        while pages > step * MAX_REGIONS:
            step *= 2
        return step

    def summary(self, final: bool = False) -> dict[str, str]:
        """Hexadecimal digests of every `region` pages, eight bytes each, by block name.

        `final`: of each page only the last version that passed. A post-copy that was taken up again sends
        pages twice that the broken channel has lost, so that all versions do not agree.
        """
        step = self.region
        result = {}
        for name, block in self.blocks.items():
            sums = block.last if final else block.sums
            result[name] = b"".join(
                sha256(sums[at : at + step].tobytes()).digest()[:8] for at in range(0, len(sums), step)
            ).hex()
        return result


def differences(
    ours: Mapping[str, str], theirs: Mapping[str, str], region: int = REGION_PAGES
) -> list[str]:
    """Where two summaries differ, as "BLOCK at OFFSET" or "BLOCK" where its sizes do; [] when they are equal.

    `region`: pages under one digest of ours.

    At most 20 places are named. Raises nothing: `theirs` comes from the peer.
    """
    places: list[str] = []
    for name in sorted(set(ours) | set(theirs)):
        mine, other = ours.get(name), theirs.get(name)
        if mine is None or not isinstance(other, str) or len(mine) != len(other):
            places.append(name)
            continue
        places += [
            f"{name} at {at // 16 * region * PAGE:#x}"
            for at in range(0, len(mine), 16)
            if mine[at : at + 16] != other[at : at + 16]
        ]
    return places[:20]


def report(ledger: PageLedger, tail: int, off: str) -> dict[str, Any]:
    """For the result file: totals, passes, bytes of device state, and why counting stopped early."""
    entry: dict[str, Any] = {
        **ledger.totals.as_dict(),
        "passes": [one.as_dict() for one in ledger.passes()],
        "device_tail_bytes": tail,
        "off": off,
    }
    if ledger.faults:
        entry["faults"] = ledger.fault_summary()
    return entry
