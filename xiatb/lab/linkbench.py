"""How exact links are: lateness of the delay, accuracy of the rate. For scripts/bench.

Frames of an ethertype for experiments go through one real link of a lab; the kernel stamps them when they
leave the sender's port and when they reach the receiver's, so that no measuring program is in the figures.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from xiatb.errors import XiatbError
from xiatb.lab.namespaces import inside
from xiatb.lab.netlink import counters

_ETHERTYPE = 0x88B5  # for local experiments (IEEE 802)
_ETH_P_ALL = 0x0003
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 32, 33, 35
_BACKLOG = 500_000
"""bytes, of which the kernel takes twice as many, with its own overhead"""
_TIMESPEC = struct.Struct("@qq")
_MAGIC = b"xiatb-bench"
_HEADER = b"\xff" * 6 + b"\x02\0\0\0\0\1" + _ETHERTYPE.to_bytes(2, "big") + _MAGIC


class End(NamedTuple):
    """One end of the link measured: its namespace and interface."""

    netns: Path
    port: str


def lateness(
    source: End, sink: End, *, delay: float, rate: int = 8000, seconds: float = 4.0, size: int = 1500
) -> dict[str, float]:
    """Send `rate` frames a second of `size` bytes (with Ethernet header) and compare the time each takes with
    `delay` (seconds): {"frames", "lost", "p50_ms", "p99_ms", "max_ms"} of the lateness in milliseconds."""
    with _tap(source) as left, _tap(sink) as right, _sender(source) as sender:
        total = int(rate * seconds)
        filler = bytes(size - len(_HEADER) - 8)
        start = time.monotonic()
        for number in range(total):
            due = start + number / rate
            while time.monotonic() < due:
                pass
            with contextlib.suppress(OSError):  # a full queue is a lost frame
                sender.send(_HEADER + number.to_bytes(8, "big") + filler)
        time.sleep(delay + 0.3)
        sent, came = _stamps(left), _stamps(right)
    late = sorted((came[number] - sent[number]) / 1e6 - delay * 1e3 for number in came if number in sent)
    if not late:
        raise XiatbError(f"{sink.netns.name}: nothing arrived at {sink.port}")
    return {
        "frames": len(late),
        "lost": total - len(late),
        "p50_ms": round(late[len(late) // 2], 4),
        "p99_ms": round(late[len(late) * 99 // 100], 4),
        "max_ms": round(late[-1], 4),
    }


def throughput(source: End, sink: End, *, seconds: float = 3.0, size: int = 1514) -> float:
    """Bits a second of Ethernet frames that arrive when more is offered than the link takes. The link's queue
    should be 1 MB or more."""
    frame = _HEADER + bytes(size - len(_HEADER))
    with _sender(source) as sender:
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BACKLOG)
        send = sender.send  # blocks while the backlog is full: the link is never idle and nothing is dropped
        marks: list[tuple[float, int]] = []
        for until in (0.5, seconds):  # the bucket and the queue fill first
            end = time.monotonic() + until
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    for _ in range(20):
                        send(frame)
            marks.append((time.monotonic(), counters(sink.netns)[sink.port]["rx_bytes"]))
    (begin, before), (end, after) = marks
    return (after - before) * 8 / (end - begin)


@contextlib.contextmanager
def _sender(end: End) -> Iterator[socket.socket]:
    with inside(end.netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.bind((end.port, 0))
        yield sock


@contextlib.contextmanager
def _tap(end: End) -> Iterator[socket.socket]:
    """A socket that sees what leaves and what arrives, with the kernel's time."""
    with inside(end.netns):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 28)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setblocking(False)
        sock.bind((end.port, _ETH_P_ALL))
        yield sock


def _stamps(sock: socket.socket) -> dict[int, int]:
    """Frame number -> nanoseconds (the kernel's wall clock) of all that a tap has seen."""
    found = {}
    place = len(_HEADER)
    with contextlib.suppress(BlockingIOError):
        while True:
            data, ancillary, _flags, _address = sock.recvmsg(place + 8, 64)
            if data[:place] == _HEADER and ancillary:
                found[int.from_bytes(data[place:], "big")] = _time(ancillary)
    return found


def _time(ancillary: list[tuple[int, int, bytes]]) -> int:
    stamp: Any = next(data for level, kind, data in ancillary if kind == _SO_TIMESTAMPNS)
    seconds, nanoseconds = _TIMESPEC.unpack(stamp)
    return int(seconds) * 10**9 + int(nanoseconds)
