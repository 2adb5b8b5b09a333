"""The guest's second serial port as a non-blocking byte pipe with a bounded send queue.

Raw 8N1 mode, no carrier needed (CLOCAL): while no host is connected, or during a migration, QEMU
swallows or holds bytes; the guest must neither block nor grow. When the queue is full, whole new
messages are dropped and counted; the host asks again.
"""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import Callable
from typing import Any

MAX_QUEUED = 512 * 1024


def open_raw(path: str) -> int:
    """A non-blocking descriptor of the serial device `path` in raw mode at 115200 baud."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    if os.isatty(fd):
        control: list[bytes | int] = [b"\0"] * 32
        control[termios.VMIN], control[termios.VTIME] = 1, 0
        flags = termios.CS8 | termios.CREAD | termios.CLOCAL
        attributes: list[Any] = [0, 0, flags, 0, termios.B115200, termios.B115200, control]
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    return fd


class SerialPipe:
    """Reads and writes an already raw descriptor inside a running asyncio loop.

    `on_data(bytes)` is called for what arrives.
    """

    def __init__(self, fd: int, on_data: Callable[[bytes], None]) -> None:
        self.fd = fd
        self.dropped = 0
        self._on_data = on_data
        self._queue = bytearray()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._readable)

    def send(self, line: bytes) -> bool:
        """Queues one whole message; False (and counted) when the queue has no room for it.

        An empty line goes before it, so that what a migration cut off cannot spoil it.
        """
        line = b"\n" + line
        if len(self._queue) + len(line) > MAX_QUEUED:
            self.dropped += 1
            return False
        if not self._queue:
            self._loop.add_writer(self.fd, self._writable)
        self._queue += line
        return True

    async def drain(self, timeout: float) -> None:
        """Waits until the queue is empty and the UART has sent it, `timeout` seconds at most."""
        end = self._loop.time() + timeout
        while self._queue and self._loop.time() < end:
            await asyncio.sleep(0.005)
        if not self._queue and os.isatty(self.fd):
            await self._loop.run_in_executor(None, termios.tcdrain, self.fd)

    def _readable(self) -> None:
        try:
            data = os.read(self.fd, 4096)
        except BlockingIOError:
            return
        if data:
            self._on_data(data)

    def _writable(self) -> None:
        try:
            sent = os.write(self.fd, memoryview(self._queue)[:4096])
        except BlockingIOError:
            return
        del self._queue[:sent]
        if not self._queue:
            self._loop.remove_writer(self.fd)
