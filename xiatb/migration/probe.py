"""How fast a path between two daemons is: a stream like that of a memory channel, for a second at most.

The source sends bytes that mean nothing, counts what the peer has acknowledged, and takes the rate of the
second half of the time, when the congestion window has grown. The destination reads to the end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xiatb.migration.meter import Meter
from xiatb.migration.wirestream import Wire

MAX_BYTES: Final = 4 << 20
MAX_S: Final = 0.9
CHUNK: Final = 16 * 1024
MAX_READ: Final = 2 * MAX_BYTES
"""A destination that is sent more than this resets the stream."""


@dataclass(frozen=True)
class Goodput:
    """rate: bytes a second of payload; round_trip: seconds, 0.0 when unknown; sent: bytes; seconds."""

    rate: float
    round_trip: float
    sent: int
    seconds: float


async def send(wire: Wire, clock: Callable[[], float] = time.monotonic) -> Goodput:
    """Measure and end the stream's sending direction; raises what the wire raises."""
    chunk = random.Random(1).randbytes(CHUNK)
    begin = clock()
    meter, seen, sent = Meter(begin), [(begin, 0)], 0
    wire.set_bound(meter.bound(0.0))
    while sent < MAX_BYTES and clock() - begin < MAX_S:
        await wire.write(chunk)
        sent += len(chunk)
        now = clock()
        if meter.count(len(chunk), now):
            wire.set_bound(meter.bound(wire.round_trip()))
        seen.append((now, max(0, sent - wire.backlog())))
    wire.write_eof()
    return Goodput(settled_rate(seen), wire.round_trip(), sent, seen[-1][0] - begin)


def settled_rate(seen: list[tuple[float, int]]) -> float:
    """Bytes a second over the second half of the time, of (seconds, bytes acknowledged so far) in order; 0.0
    when there is nothing to tell it from."""
    (begin, _), (end, total) = seen[0], seen[-1]
    half = next((one for one in seen if one[0] >= (begin + end) / 2), seen[0])
    if end > half[0] and total > half[1]:
        return (total - half[1]) / (end - half[0])
    return total / (end - begin) if end > begin else 0.0


async def receive(wire: Wire) -> int:
    """Read to the end of the peer's probe; gives the bytes. Raises ConnectionResetError for too many."""
    taken = 0
    while data := await wire.read(64 * 1024):
        taken += len(data)
        if taken > MAX_READ:
            wire.abort()
            raise ConnectionResetError("more bytes than a probe has")
    return taken
