"""What every service process shares: its control channel to the agent and the run loop.

The agent forks the process and keeps the other end of a socket pair; both speak the line protocol
of `xiatb.guests.agent.protocol`. A service answers `counters` and whatever its kind adds; it says
{"event": "service", "state": "up"|"failed", ...} when its SID is bound or could not be bound.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from xiatb.errors import XiatbError
from xiatb.guests.agent.protocol import LineDecoder, Message, encode, failure, success

BIND_DEADLINE = 150.0
READ = 64 * 1024
"""Bytes that a service takes from a stream or socket at once."""
_RETRY = 0.2


@dataclass(frozen=True)
class ServiceSpec:
    """One entry of the guest configuration's `services`: `key` is the path of the SID's private key."""

    name: str
    kind: str
    key: str
    options: dict[str, Any]


class Service(Protocol):
    """A kind of service."""

    async def start(self) -> None:
        """Binds the SID and begins to serve; raises OSError or XiatbError while the node is not ready."""

    def counters(self) -> Message:
        """Plain numbers for the agent's `counters`."""

    async def control(self, message: Message) -> Message:
        """A request of this kind; raises ValueError for an unknown or wrong one."""


class EchoedStreams:
    """Gives back what streams bring, of XIA or of TCP (their readers and writers are alike), and counts:
    connections open, accepted and broken, and bytes."""

    def __init__(self) -> None:
        self.open = self.accepted = self.broken = self.bytes = 0

    async def serve(self, reader: Any, writer: Any) -> None:
        """One connection, until its peer ends it; what a server calls for every one."""
        self.open += 1
        self.accepted += 1
        try:
            while data := await reader.read(READ):
                self.bytes += len(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
            await writer.drain()
        except (OSError, EOFError, XiatbError):
            self.broken += 1
        finally:
            self.open -= 1
            writer.close()


async def bind_with_retry(start: Callable[[], Awaitable[None]], deadline: float = BIND_DEADLINE) -> None:
    """Calls `start` until it works; the node process may still be opening its control socket.

    Raises the last error after `deadline` seconds.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            await start()
            return
        except (OSError, XiatbError):
            if time.monotonic() >= end:
                raise
            await asyncio.sleep(_RETRY)


class ControlChannel(asyncio.Protocol):
    """The service's end of the socket pair: requests in, answers and events out."""

    def __init__(self, name: str, service: Service) -> None:
        self._name = name
        self._service = service
        self._decoder = LineDecoder()
        self._transport: asyncio.WriteTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the pair is open."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: requests from the agent."""
        for message in self._decoder.feed(data):
            task = asyncio.ensure_future(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the agent is gone, so is the service."""
        self.closed.set()

    def event(self, state: str, text: str = "") -> None:
        """Tells the agent the state of this service."""
        self._send({"event": "service", "name": self._name, "state": state, "message": text})

    async def _answer(self, message: Message) -> None:
        ident, op = message.get("id"), message.get("op")
        try:
            result = self._service.counters() if op == "counters" else await self._service.control(message)
        except (ValueError, TypeError, KeyError) as error:
            self._send(failure(ident, "EINVAL", str(error)))
        except (OSError, XiatbError) as error:
            self._send(failure(ident, "EIO", str(error)))
        else:
            self._send(success(ident, result))

    def _send(self, message: Message) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))


async def _serve(name: str, service: Service, control: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(lambda: ControlChannel(name, service), sock=control)
    try:
        await bind_with_retry(service.start)
    except (OSError, XiatbError) as error:
        channel.event("failed", str(error))
    else:
        channel.event("up")
    await channel.closed.wait()


def run(name: str, make: Callable[[], Service], control: socket.socket) -> None:
    """The body of a service process: builds the service in a fresh loop and serves until the agent goes."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    control.setblocking(False)

    async def body() -> None:
        await _serve(name, make(), control)

    asyncio.run(body())
