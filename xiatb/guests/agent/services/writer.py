"""The writer: dirties guest memory and a disk file at given rates with predictable content.

Memory is an anonymous mapping, the file lies on the root disk. Both are written in 64 KiB chunks in
round-robin order (`xiatb.guests.agent.pattern`), so that after n writes the host knows every byte.
`verify` stops both for the time it takes to hash them; the file is flushed and dropped from the
page cache first, so that its checksum comes from the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import time
from typing import Any

from xiatb.guests.agent.pattern import CHUNK, Pattern
from xiatb.guests.agent.protocol import Message
from xiatb.guests.agent.services.base import ServiceSpec

TICK = 0.05
MAX_MEMORY = 1 << 34
MAX_DISK = 1 << 34


def _number(options: dict[str, Any], key: str, default: int, top: int) -> int:
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= top:
        raise ValueError(f"{key} must be a whole number from 0 to {top}")
    return value


class Target:
    """A round-robin target of `chunks` chunks: `written` writes so far, `rate` bytes a second."""

    def __init__(self, seed: int, size: int) -> None:
        self.pattern = Pattern(seed)
        self.chunks = max(1, (size + CHUNK - 1) // CHUNK)
        self.written = 0
        self.rate = 0
        self.behind = 0
        self._credit = 0.0

    def due(self, elapsed: float) -> int:
        """How many chunks to write now; what cannot be caught up within a second is counted in `behind`."""
        self._credit += self.rate * elapsed / CHUNK
        if self._credit > max(1.0, self.rate / CHUNK):
            self.behind += int(self._credit - self.rate / CHUNK)
            self._credit = max(1.0, self.rate / CHUNK)
        count = int(self._credit)
        self._credit -= count
        return count

    def next(self) -> tuple[int, bytes, bytes]:
        """Offset in bytes, stamp and body of the next write; counts it."""
        index = self.written % self.chunks
        version = self.written // self.chunks + 1
        self.written += 1
        return index * CHUNK, self.pattern.stamp(index, version), self.pattern.body(index, version)

    def report(self) -> Message:
        """What the host needs to predict the digest."""
        return {
            "seed": self.pattern.seed,
            "chunks": self.chunks,
            "writes": self.written,
            "bytes": self.written * CHUNK,
            "rate": self.rate,
            "behind": self.behind,
        }


class Memory(Target):
    """The memory region; all its pages are present, in version 0, from the start."""

    def __init__(self, seed: int, size: int) -> None:
        super().__init__(seed, size)
        self.region = mmap.mmap(-1, self.chunks * CHUNK)
        for index in range(self.chunks):
            self.region[index * CHUNK : (index + 1) * CHUNK] = self.pattern.chunk(index, 0)

    def write(self, count: int) -> None:
        """Rewrites the next `count` chunks."""
        region = self.region
        for _ in range(count):
            offset, stamp, body = self.next()
            region[offset : offset + len(stamp)] = stamp
            region[offset + len(stamp) : offset + CHUNK] = body

    def digest(self) -> str:
        """SHA-256 (hex) of the region as it is in memory."""
        return hashlib.sha256(self.region).hexdigest()


class Disk(Target):
    """The file at `path`; made in version 0 when the writer starts, flushed once a tick."""

    def __init__(self, seed: int, size: int, path: str) -> None:
        super().__init__(seed, size)
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        for index in range(self.chunks):
            os.pwrite(self.fd, self.pattern.chunk(index, 0), index * CHUNK)
        os.fsync(self.fd)

    def write(self, count: int) -> None:
        """Rewrites the next `count` chunks and makes them durable."""
        for _ in range(count):
            offset, stamp, body = self.next()
            os.pwritev(self.fd, [stamp, body], offset)
        if count:
            os.fdatasync(self.fd)

    def digest(self) -> str:
        """SHA-256 (hex) of the file as it is on the disk."""
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        total = hashlib.sha256()
        for index in range(self.chunks):
            total.update(os.pread(self.fd, CHUNK, index * CHUNK))
        return total.hexdigest()


class Writer:
    """The service object.

    Options: `memory_set`, `disk_set` (bytes), `memory_rate`, `disk_rate` (B/s), `seed`, `path`.
    """

    def __init__(self, spec: ServiceSpec, seed: int) -> None:
        self._options = dict(spec.options)
        self._seed = _number(self._options, "seed", seed & 0xFFFFFFFF, 0xFFFFFFFF)
        self._memory: Memory | None = None
        self._disk: Disk | None = None
        self._running = False
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins at once when a rate is configured; the writer has no SID to bind."""
        if self._options.get("memory_rate") or self._options.get("disk_rate"):
            await self._begin(self._options)

    def counters(self) -> Message:
        """State, and per target what the host needs to predict its digest."""
        return {
            "running": self._running,
            "memory": self._memory.report() if self._memory else None,
            "disk": self._disk.report() if self._disk else None,
        }

    async def control(self, message: Message) -> Message:
        """`start` (new rates; a changed set size restarts its content), `stop`, `verify`."""
        op = message.get("op")
        if op == "start":
            await self._begin(message)
            return self.counters()
        if op == "stop":
            async with self._lock:
                self._running = False
            return self.counters()
        if op == "verify":
            return await self._verify()
        raise ValueError(f"a writer knows no {op!r}; it knows counters, start, stop, verify")

    async def _begin(self, options: dict[str, Any]) -> None:
        merged = {**self._options, **options}
        memory_rate = _number(merged, "memory_rate", 0, MAX_MEMORY)
        disk_rate = _number(merged, "disk_rate", 0, MAX_DISK)
        memory_set = _number(merged, "memory_set", 16 << 20, MAX_MEMORY)
        disk_set = _number(merged, "disk_set", 8 << 20, MAX_DISK)
        async with self._lock:
            if memory_rate and (self._memory is None or self._memory.chunks != -(-memory_set // CHUNK)):
                self._memory = Memory(self._seed, memory_set)
            if disk_rate and (self._disk is None or self._disk.chunks != -(-disk_set // CHUNK)):
                self._disk = Disk(self._seed + 1, disk_set, str(merged.get("path", "/var/tmp/xiatb-writer")))
            for target, rate in ((self._memory, memory_rate), (self._disk, disk_rate)):
                if target is not None:
                    target.rate = rate
            self._running = True
        self._wake.set()
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        last = time.monotonic()
        while True:
            if not self._running:
                self._wake.clear()
                await self._wake.wait()
                last = time.monotonic()
            await asyncio.sleep(TICK)
            now = time.monotonic()
            async with self._lock:
                if self._running:
                    self._tick(now - last)
            last = now

    def _tick(self, elapsed: float) -> None:
        if self._memory is not None:
            self._memory.write(self._memory.due(elapsed))
        if self._disk is not None:
            self._disk.write(self._disk.due(elapsed))

    async def _verify(self) -> Message:
        loop = asyncio.get_running_loop()
        async with self._lock:
            result = self.counters()
            for name, target in (("memory", self._memory), ("disk", self._disk)):
                if target is not None:
                    result[name]["digest"] = await loop.run_in_executor(None, target.digest)
        return result
