"""The asyncio socket API of XIA: streams like `asyncio.open_connection`, and datagrams.

Addresses are DAGs, their text, or names of the lab's hosts file. Errors are `SocketError`s: OSErrors
with an errno, and XiatbErrors. Streams and datagram sockets follow every move of the node by
themselves; applications notice nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

from xiatb.errors import XiatbError
from xiatb.identity.keys import KeyPair
from xiatb.node import stack as stacks
from xiatb.node.bound import BoundEndpoint
from xiatb.node.socket_errors import from_xiatb
from xiatb.node.stack import Stack
from xiatb.node.xdatagram import OnReceive, XDatagram
from xiatb.node.xstream import StreamEnd, XReader, XWriter
from xiatb.transport.config import DatagramConfig, StreamConfig
from xiatb.transport.stream import Stream
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID

__all__ = [
    "Stack",
    "XDatagram",
    "XReader",
    "XServer",
    "XWriter",
    "open_connection",
    "open_datagram",
    "start_server",
]

OnConnection = Callable[[XReader, XWriter], Awaitable[None] | None]
log = logging.getLogger("xiatb.sockets")


@contextlib.contextmanager
def _socket_errors() -> Iterator[None]:
    """Lets the errors of the lower rooms out as those of the socket API."""
    try:
        yield
    except XiatbError as error:
        raise from_xiatb(error) from error


async def open_connection(
    dag: DAG | str,
    *,
    key: KeyPair | None = None,
    stack: Stack | None = None,
    config: StreamConfig | None = None,
) -> tuple[XReader, XWriter]:
    """Connects to a service.

    dag: address, its text or a name; key: the identity of this side (default: a fresh one, so that
    the connection survives moves and nobody can tell who connects); config: its MTU, when left at
    the default, is that of the node's link. Raises SocketError: ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT,
    EADDRINUSE, ENETDOWN, ENOENT, ...
    """
    with _socket_errors():
        where = stack or stacks.default()
        remote = await where.resolve(dag)
        bound = await BoundEndpoint.open(where, key or KeyPair.generate(), config)
        try:
            end = StreamEnd(bound, bound.connect(remote), owned=True)
        except XiatbError:
            bound.close()
            raise
    try:
        await end.connected()
    except (asyncio.CancelledError, OSError):
        end.abort()
        bound.close()
        raise
    return XReader(end), XWriter(end)


class XServer:
    """A listening SID. Made by `start_server`; `async with` closes it."""

    def __init__(self, bound: BoundEndpoint, on_connection: OnConnection) -> None:
        self._bound = bound
        self._on_connection = on_connection
        self._tasks: set[asyncio.Future[None]] = set()
        self._ended = asyncio.get_running_loop().create_future()
        bound.on_accept = self._accepted
        bound.on_lost = self._lost

    @property
    def sid(self) -> XID:
        """The SID that is served."""
        return self._bound.sid

    @property
    def dag(self) -> DAG:
        """The address of the service at the node's present location."""
        return self._bound.endpoint.local

    def _accepted(self, stream: Stream) -> None:
        end = StreamEnd(self._bound, stream, owned=False)
        answer = self._on_connection(XReader(end), XWriter(end))
        if answer is not None:
            task = asyncio.ensure_future(answer)
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._served(done, end))

    def _served(self, task: asyncio.Future[None], end: StreamEnd) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if isinstance(error, OSError):
            log.info("a connection ended: %s", error)
        else:
            log.error("a connection handler failed", exc_info=error)
        end.abort()

    def _lost(self, error: XiatbError) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def serve_forever(self) -> None:
        """Returns when the server is closed or the node is gone."""
        await asyncio.shield(self._ended)

    def close(self) -> None:
        """Stops listening and ends all connections of this SID at once."""
        for task in self._tasks:
            task.cancel()
        for stream in self._bound.endpoint.streams:
            stream.abort("the server was closed")
        self._bound.driver.pump()
        for user in list(self._bound.users.values()):
            user.fail(from_xiatb(XiatbError("the server was closed")))
        self._bound.close()
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait_closed(self) -> None:
        """Waits for the connection handlers to end."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> XServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()


async def start_server(
    on_connection: OnConnection,
    key: KeyPair,
    *,
    stack: Stack | None = None,
    config: StreamConfig | None = None,
    backlog: int = 64,
) -> XServer:
    """Serves the SID of `key`: `on_connection(reader, writer)` for every connection, as in asyncio.

    An exception out of the handler aborts its connection. Raises SocketError EADDRINUSE, ENETDOWN.
    """
    with _socket_errors():
        bound = await BoundEndpoint.open(stack or stacks.default(), key, config)
        server = XServer(bound, on_connection)
        bound.endpoint.listen(backlog)
    return server


async def open_datagram(
    key: KeyPair | None = None,
    *,
    stack: Stack | None = None,
    on_receive: OnReceive | None = None,
    config: DatagramConfig | None = None,
) -> XDatagram:
    """A datagram socket on the SID of `key`; without a key on a fresh SID that cannot prove its moves.

    on_receive: called with (payload, source) for every datagram, in place of `recv`.
    Raises SocketError EADDRINUSE, ENETDOWN.
    """
    with _socket_errors():
        bound = await BoundEndpoint.open(
            stack or stacks.default(), key, datagram_config=config or DatagramConfig()
        )
    return XDatagram(bound, on_receive)
