"""Carries one UNIX-socket connection of libvirt or QEMU over a `Wire`, both ways, with half-close.

The local side is a raw non-blocking socket, read without read-ahead: what the relay has not taken stays in
the kernel's socket buffer, where it holds QEMU back.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import socket
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from xiatb.errors import XiatbError
from xiatb.migration.meter import Meter
from xiatb.migration.wirestream import Wire

CHUNK = 64 * 1024
Observer = Callable[[bytes], None]


class Gate(Protocol):
    """Looks at a relay's bytes before they leave (it may wait, or raise to end the relay) and after they
    came."""

    async def outgoing(self, data: bytes) -> None:
        """Before `data` goes from the local side to the wire."""

    def incoming(self, data: bytes) -> None:
        """After `data` from the wire was written to the local side."""


class Relay:
    """One relayed connection. `up` counts local -> wire, `down` wire -> local.

    `observer` is shown every chunk of the local -> wire direction after it was written, `inward` every chunk
    of the other one; they must not raise.
    """

    def __init__(
        self,
        name: str,
        local: socket.socket,
        wire: Wire,
        observer: Observer | None = None,
        gate: Gate | None = None,
        inward: Observer | None = None,
    ) -> None:
        self.name = name
        self._local = local
        self._wire = wire
        self._observer = observer
        self._inward_observer = inward
        self._gate = gate
        self.up = Meter(time.monotonic())
        self.down = Meter(time.monotonic())
        self.error = ""
        self._busy = False  # part of a chunk has gone to the local side

    def insert(self, data: bytes) -> bool:
        """Put a little of this side's own before what the wire brings next; False when there is no room."""
        if self._busy:
            return False
        try:
            return self._local.send(data) == len(data)
        except OSError:
            return False

    async def run(self) -> None:
        """Carry both directions until both have ended, or one broke: then both sides are reset.

        Never raises for faults of the streams; `error` says what happened.
        """
        self._local.setblocking(False)
        pumps = [asyncio.ensure_future(self._outward()), asyncio.ensure_future(self._inward())]
        try:
            await asyncio.gather(*pumps)
            await self._wire.close()
        except (OSError, XiatbError, EOFError) as error:
            self.error = f"{self.name}: {error}"
            self._reset()
        except asyncio.CancelledError:
            self.error = f"{self.name}: closed"
            self._reset()
            raise
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._local.close()

    def backlog(self) -> int:
        """Bytes between the local writer and the peer's acknowledgement now."""
        return _waiting(self._local) + self._wire.backlog()

    def round_trip(self) -> float:
        """Smallest round-trip time of the wire in seconds, 0.0 when unknown."""
        return self._wire.round_trip()

    def _reset(self) -> None:
        self._wire.abort()
        with contextlib.suppress(OSError):
            self._local.shutdown(socket.SHUT_RDWR)

    async def _outward(self) -> None:
        loop = asyncio.get_running_loop()
        self._wire.set_bound(self.up.bound(0.0))
        while data := await loop.sock_recv(self._local, CHUNK):
            if self._gate is not None:
                await self._gate.outgoing(data)
            await self._wire.write(data)
            if self._observer is not None:
                self._observer(data)
            if self.up.count(len(data), time.monotonic()):
                self._wire.set_bound(self.up.bound(self._wire.round_trip()))
            self.up.saw_backlog(self.backlog())
        self._wire.write_eof()

    async def _inward(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await self._wire.read(CHUNK):
            self._busy = True
            await loop.sock_sendall(self._local, data)
            self._busy = False
            if self._inward_observer is not None:
                self._inward_observer(data)
            self.down.count(len(data), time.monotonic())
            if self._gate is not None:
                self._gate.incoming(data)
        with contextlib.suppress(OSError):
            self._local.shutdown(socket.SHUT_WR)


def _waiting(local: socket.socket) -> int:
    """Bytes in the local socket's receive queue (SIOCINQ, unix(7))."""
    if local.fileno() < 0:
        return 0
    number = array.array("i", [0])
    try:
        fcntl.ioctl(local.fileno(), termios.FIONREAD, number)
    except OSError:
        return 0
    return number[0]


def listen_unix(path: Path) -> socket.socket:
    """A listening, non-blocking UNIX socket at `path`, mode 0600; a stale file of that name is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(16)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def connect_unix(path: Path) -> socket.socket:
    """A connection to the UNIX socket at `path`; raises OSError."""
    local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        local.setblocking(False)
        await asyncio.get_running_loop().sock_connect(local, str(path))
    except OSError:
        local.close()
        raise
    return local
