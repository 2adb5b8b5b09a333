"""What a probe client records, and how it is kept in a file.

A probe log holds, for each sequence number, when the request was sent and when its first answer came.
The file is a 16-byte header (magic `XIAPROBE`, u32 version, u32 reserved, little-endian) followed by
one record of two u64 little-endian nanosecond stamps of CLOCK_MONOTONIC per sequence number: sent,
answered (0 = never answered). All namespaces of a host share that clock.
"""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError

MAGIC = b"XIAPROBE"
VERSION = 1
BEFORE_NS, AFTER_NS = 500_000_000, 1_000_000_000
_HEADER = struct.Struct("<8sII")
_RECORD_BYTES = 16


class ProbeLogError(XiatbError):
    """A probe log file is damaged."""


@dataclass
class ProbeLog:
    """Stamps of all requests of one probe run, index = sequence number, nanoseconds."""

    sent: array[int] = field(default_factory=lambda: array("Q"))
    answered: array[int] = field(default_factory=lambda: array("Q"))

    def request(self, now_ns: int) -> int:
        """Record a request sent at `now_ns`; returns its sequence number."""
        self.sent.append(now_ns)
        self.answered.append(0)
        return len(self.sent) - 1

    def answer(self, seq: int, now_ns: int) -> bool:
        """Record an answer to `seq`; False for an unknown sequence number or a duplicate."""
        if not 0 <= seq < len(self.answered) or self.answered[seq]:
            return False
        self.answered[seq] = now_ns
        return True

    def save(self, path: Path) -> None:
        """Write the log to `path`."""
        flat = array("Q", bytes(_RECORD_BYTES * len(self.sent)))
        flat[0::2] = self.sent
        flat[1::2] = self.answered
        path.write_bytes(_HEADER.pack(MAGIC, VERSION, 0) + flat.tobytes())

    @classmethod
    def load(cls, path: Path) -> ProbeLog:
        """Read a log; raises ProbeLogError for anything that `save` does not write."""
        data = path.read_bytes()
        if len(data) < _HEADER.size:
            raise ProbeLogError(f"{path}: shorter than a probe log's header")
        magic, version, _ = _HEADER.unpack_from(data)
        body = len(data) - _HEADER.size
        if magic != MAGIC or version != VERSION or body % _RECORD_BYTES:
            raise ProbeLogError(f"{path}: not a probe log of version {VERSION}")
        flat = array("Q", data[_HEADER.size :])
        return cls(sent=flat[0::2], answered=flat[1::2])


@dataclass(frozen=True)
class Window:
    """A span of the host's monotonic clock, nanoseconds, end exclusive."""

    start_ns: int
    end_ns: int

    @classmethod
    def around(cls, outcome: Mapping[str, Any]) -> Window:
        """In which clients are looked at during a migration with this result: from BEFORE_NS before its
        request to AFTER_NS after its commit."""
        return cls(outcome["t_request_ns"] - BEFORE_NS, outcome["t_commit_ns"] + AFTER_NS)

    def left_s(self) -> float:
        """Seconds until its end, 0 when that is over."""
        return max(0.0, (self.end_ns - time.monotonic_ns()) / 1e9)


@dataclass(frozen=True)
class ProbeSummary:
    """What a window of a probe log says; times in milliseconds.

    `gap_ms` is the longest time without an answer: the largest difference between consecutive answer
    arrivals, the window's ends counted as arrivals, as in the NSDI'12 XIA paper's evaluation. `outage_ms` is
    stricter: the longest time in which no request was sent that got an answer; answers to requests that were
    queued before an outage do not shorten it.
    """

    sent: int
    lost: int
    gap_ms: float
    gap_start_ns: int
    gap_end_ns: int
    outage_ms: float
    rtt_median_ms: float


def summarise(log: ProbeLog, window: Window) -> ProbeSummary:
    """Summarise the requests sent, and the answers that arrived, inside `window`."""
    sent = lost = 0
    rtts: list[int] = []
    served = [window.start_ns]
    for out, back in zip(log.sent, log.answered, strict=True):
        if window.start_ns <= out < window.end_ns:
            sent += 1
            if back:
                rtts.append(back - out)
                served.append(out)
            else:
                lost += 1
    arrivals = sorted(t for t in log.answered if window.start_ns <= t < window.end_ns)
    start, end = _longest([window.start_ns, *arrivals, window.end_ns])
    out_start, out_end = _longest([*served, window.end_ns])
    rtts.sort()
    median = rtts[len(rtts) // 2] / 1e6 if rtts else float("nan")
    return ProbeSummary(sent, lost, (end - start) / 1e6, start, end, (out_end - out_start) / 1e6, median)


def _longest(stamps: list[int]) -> tuple[int, int]:
    """The two consecutive stamps that are farthest apart."""
    return max(zip(stamps, stamps[1:], strict=False), key=lambda pair: pair[1] - pair[0])


def first_answer_after(log: ProbeLog, instant_ns: int) -> int | None:
    """Arrival stamp of the first answer at or after `instant_ns`; None when there is none."""
    return min((t for t in log.answered if t >= instant_ns), default=None)
