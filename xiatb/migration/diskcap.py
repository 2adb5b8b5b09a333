"""The cap of the bandwidth of disks that move: their channels are held back here.

QEMU's own cap of a block mirror will not do. Where the target cannot take zeros cheaply, as over libvirt's
NBD, the mirror counts a hole like data (mirror_iteration in QEMU's block/mirror.c), so that a disk of 1 GiB
with 94 MB in it took 171 s at 6 MiB/s (docs/modes.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

BURST_S = 0.1
"""A channel that had nothing to send may catch up on so much of the past, seconds."""


class DiskCap:
    """A gate of relays (migration/relay.py) that lets no more than `cap()` bytes a second out of all channels
    that share it; 0 for no cap. `cap` is asked for every chunk, so a change counts from the next one on."""

    def __init__(
        self,
        cap: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cap = cap
        self._clock = clock
        self._sleep = sleep
        self._paid = 0.0
        """until when what went out is paid for, seconds of `clock`"""

    async def outgoing(self, data: bytes) -> None:
        """Return when these bytes may go."""
        now, cap = self._clock(), self._cap()
        if not cap:
            self._paid = now
            return
        self._paid = max(self._paid, now - BURST_S) + len(data) / cap
        if self._paid > now:
            await self._sleep(self._paid - now)

    def incoming(self, data: bytes) -> None:
        """Answers of the other side are not held back."""
