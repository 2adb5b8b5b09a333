"""How much of a guest's memory is in use, and how fast it is written to: by sampling QEMU's memory twice.

`/proc/PID/mem` of the QEMU process is read at a random choice of guest pages, three times: which pages are
zero, which changed after a short time and which after a longer one. Two periods tell the rate from the size
of the working set: x(t) = W (1 - exp(-D t / W)). libvirt's own calculation (`virDomainStartDirtyRateCalc`)
samples 512 pages of a GiB, which is 80 pages of a small guest: too few to tell a hot set of some MiB.
"""

from __future__ import annotations

import math
import os
import random
import re
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from xiatb.errors import XiatbError
from xiatb.migration.predictor import PAGE, Workload

SAMPLES: Final = 8192
SHORT_S: Final = 0.5
LONG_S: Final = 2.0
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+)")
_ALIGN: Final = 2 << 20
"""QEMU aligns guest memory so on x86 (util/oslib-posix.c, QEMU_VMALLOC_ALIGN)."""
_ZERO: Final = zlib.crc32(bytes(PAGE))

Read = Callable[[int], bytes]
"""Gives the page at an offset in the guest's memory."""


class SamplingError(XiatbError):
    """The guest's memory cannot be looked at."""


class GuestMemory:
    """Guest memory as it lies in the QEMU process; a context manager."""

    def __init__(self, pid: int, ram: int, proc: Path = Path("/proc")) -> None:
        """`ram`: bytes of guest memory. Raises SamplingError when the process has no such memory."""
        self.ram = ram
        try:
            self._start = _find((proc / str(pid) / "smaps").read_text(), ram)
            self._file = (proc / str(pid) / "mem").open("rb", buffering=0)
        except OSError as error:
            raise SamplingError(f"the memory of process {pid} can't be read: {error}") from error

    def __enter__(self) -> GuestMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def page(self, offset: int) -> bytes:
        """The page at `offset` bytes of the first RAM block. Raises SamplingError when QEMU has ended."""
        try:
            data = os.pread(self._file.fileno(), PAGE, self._start + offset)
        except OSError as error:
            raise SamplingError(f"the guest's memory can't be read: {error}") from error
        if len(data) != PAGE:
            raise SamplingError("the guest's memory ended: QEMU is gone")
        return data


def _find(smaps: str, ram: int) -> int:
    """Address of the guest's memory: of the writable mappings that can hold `ram` bytes the one with most
    memory behind it; a mapping next to it may be merged with it. Raises SamplingError."""
    best, at = -1, -1
    low = high = 0
    for line in smaps.splitlines():
        found = _MAPPING.match(line)
        if found:
            low, high = int(found[1], 16), int(found[2], 16)
            low = high if not found[3].startswith("rw-") else low
        elif line.startswith("Rss:") and high - low >= ram and (rss := int(line.split()[1])) > best:
            best, at = rss, _aligned(low, high, ram)
    if at < 0:
        raise SamplingError(f"no mapping of {ram} bytes in QEMU's memory")
    return at


def _aligned(low: int, high: int, ram: int) -> int:
    start = -(-low // _ALIGN) * _ALIGN
    return start if start + ram <= high else low


def choose(ram: int, rng: random.Random) -> list[int]:
    """Offsets of SAMPLES pages, all different, in order; all pages of a small guest."""
    pages = ram // PAGE
    chosen = range(pages) if pages <= SAMPLES else sorted(rng.sample(range(pages), SAMPLES))
    return [page * PAGE for page in chosen]


def sums(read: Read, offsets: Sequence[int]) -> list[int]:
    """Check sums of the pages at these offsets."""
    return [zlib.crc32(read(offset)) for offset in offsets]


def estimate(
    ram: int, first: Sequence[int], short: tuple[float, Sequence[int]], long: tuple[float, Sequence[int]]
) -> Workload:
    """The workload behind three samples of the same pages; `short` and `long` have the seconds since the
    first. All samples of one length, at least one page."""
    share = ram / len(first)
    nonzero = sum(one != _ZERO for one in first) * share
    few, many = (_changed(first, later) * share for later in (short[1], long[1]))
    rate, working_set = solve(short[0], few, long[0], many)
    return Workload(ram, int(nonzero), rate, working_set)


def _changed(first: Sequence[int], later: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(first, later, strict=True))


def solve(t1: float, x1: float, t2: float, x2: float) -> tuple[float, float]:
    """(D, W) of x(t) = W (1 - exp(-D t / W)) through (t1, x1) and (t2, x2), t1 < t2; bytes and bytes/s.

    A curve that does not bend has no working set that could be told: it is taken as ten times x2.
    """
    x2 = max(x1, x2)
    if x2 <= 0:
        return 0.0, 0.0
    if x1 <= 0:
        return x2 / t2, 10 * x2
    low, high = 1e-4 / t2, 50.0 / t1

    def bend(k: float) -> float:
        return math.expm1(-k * t2) / math.expm1(-k * t1)

    if x2 / x1 >= bend(low):
        return x2 / t2, 10 * x2
    for _ in range(60):
        k = math.sqrt(low * high)
        low, high = (k, high) if bend(k) > x2 / x1 else (low, k)
    working_set = x2 / -math.expm1(-low * t2)
    return low * working_set, working_set


def measure(
    memory: GuestMemory,
    rng: random.Random,
    wait: Callable[[float], None],
    clock: Callable[[], float] = time.monotonic,
) -> Workload:
    """Sample `memory` for about `LONG_S` seconds; `wait` lets so many seconds pass. Raises SamplingError."""
    offsets = choose(memory.ram, rng)
    start = clock()
    first = sums(memory.page, offsets)
    wait(max(0.0, start + SHORT_S - clock()))
    short_at = clock() - start
    short = sums(memory.page, offsets)
    wait(max(0.0, start + LONG_S - clock()))
    long_at = clock() - start
    return estimate(memory.ram, first, (short_at, short), (long_at, sums(memory.page, offsets)))
