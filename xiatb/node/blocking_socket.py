"""A blocking socket of XIA, shaped after `socket.socket`.

Behind it are the asyncio sockets, driven by the process's one background thread. Differences from
`socket.socket`: addresses are text (a DAG in any form, or a name), a stream connect always blocks up
to the time-out, and there is no descriptor to poll.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from xiatb.errors import XiatbError
from xiatb.identity.keys import KeyPair
from xiatb.node import blocking, keystore, stack
from xiatb.node.bound import BoundEndpoint
from xiatb.node.registration import NameHold
from xiatb.node.socket_errors import from_xiatb, socket_error
from xiatb.node.stack import Stack
from xiatb.node.xdatagram import XDatagram
from xiatb.node.xstream import StreamEnd, XReader, XWriter
from xiatb.transport.config import DatagramConfig
from xiatb.transport.stream import Stream
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

XSOCK_STREAM, XSOCK_DGRAM, XSOCK_RAW = 1, 2, 3
MSG_PEEK = 2
SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2
Result = TypeVar("Result")
_held: dict[str, NameHold] = {}
"""Names that this process registered with the name server."""


async def _stack() -> Stack:
    return await stack.default().start()


class _Shared:
    """A bound endpoint and how many sockets stand on it; the last one closes it."""

    def __init__(self, bound: BoundEndpoint) -> None:
        self.bound = bound
        self.users = 1

    def leave(self) -> None:
        self.users -= 1
        if not self.users:
            self.bound.close()


class XSocket:
    """A stream or datagram socket. Errors are OSErrors with the errno that BSD sockets would give."""

    def __init__(self, kind: int = XSOCK_STREAM) -> None:
        """kind: XSOCK_STREAM or XSOCK_DGRAM. Raises SocketError EPROTONOSUPPORT for others."""
        if kind not in (XSOCK_STREAM, XSOCK_DGRAM):
            raise socket_error(errno.EPROTONOSUPPORT, "only stream and datagram sockets are there")
        self.type = kind
        self._timeout: float | None = None
        self._shared: _Shared | None = None
        self._reader: XReader | None = None
        self._writer: XWriter | None = None
        self._datagram: XDatagram | None = None
        self._waiting: deque[StreamEnd] = deque()
        self._arrived: asyncio.Event | None = None
        self._peer: DAG | None = None
        self._closed = False

    # Life

    def _run(self, work: Coroutine[Any, Any, Result], timeout: float | None = None) -> Result:
        if self._closed:
            work.close()
            raise socket_error(errno.EBADF, "the socket is closed")
        try:
            return blocking.shared().run(work, timeout)
        except XiatbError as error:
            raise from_xiatb(error) from error

    async def _bind(self, key: KeyPair | None) -> _Shared:
        if self._shared is None:
            kind = DatagramConfig() if self.type == XSOCK_DGRAM else None
            bound = await BoundEndpoint.open(await _stack(), key, datagram_config=kind)
            self._shared = _Shared(bound)
            if self.type == XSOCK_DGRAM:
                self._datagram = XDatagram(bound, None)
        return self._shared

    def bind(self, address: str) -> None:
        """Binds the final intent of `address` (a DAG or just `SID:...`), whose key must be in the key store.

        Raises SocketError: EADDRNOTAVAIL (no address), EINVAL (no key, or bound already), EADDRINUSE.
        """
        try:
            sid = XID.parse(address) if address[:4].upper() == "SID:" else DAG.parse(address).intent
            key = keystore.key_of(sid)
        except XiatbError as error:
            raise socket_error(errno.EADDRNOTAVAIL, error.message) from error
        if key is None:
            raise socket_error(errno.EINVAL, f"there is no key of {sid} in {keystore.directory()}")
        if self._shared is not None:
            raise socket_error(errno.EINVAL, "the socket is bound already")
        self._run(self._bind(key))

    def close(self) -> None:
        """Closes the socket; what was written to a stream is still delivered in the background."""
        if self._closed:
            return
        blocking.shared().call(self._close)
        self._closed = True

    def _close(self) -> None:
        while self._waiting:
            self._waiting.popleft().abort()
        if self._writer is not None:
            self._writer.close()
            blocking.shared().linger(self._leave_later(self._writer))
        elif self._datagram is not None:
            self._datagram.close()
        elif self._shared is not None:
            self._shared.bound.on_accept = lambda stream: stream.abort("the listener was closed")
            self._shared.leave()

    async def _leave_later(self, writer: XWriter) -> None:
        await writer.wait_closed()
        if self._shared is not None:
            self._shared.leave()

    def __enter__(self) -> XSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def settimeout(self, seconds: float | None) -> None:
        """None: block; 0: do not block (BlockingIOError EAGAIN); else TimeoutError after so many seconds."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """What `settimeout` set."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """As `settimeout(None)` or `settimeout(0)`."""
        self._timeout = None if flag else 0.0

    # Streams

    def listen(self, backlog: int) -> None:
        """Takes connections. Raises SocketError EINVAL when not bound, EOPNOTSUPP for datagrams."""
        self._need(XSOCK_STREAM)
        if self._shared is None:
            raise socket_error(errno.EINVAL, "the socket is not bound")
        self._run(self._listen(self._shared.bound, backlog))

    async def _listen(self, bound: BoundEndpoint, backlog: int) -> None:
        self._arrived = asyncio.Event()
        bound.on_accept = self._queue
        bound.on_lost = lambda error: self._arrived.set() if self._arrived else None
        bound.endpoint.listen(backlog)

    def _queue(self, stream: Stream) -> None:
        if self._shared is not None and self._arrived is not None:
            self._waiting.append(StreamEnd(self._shared.bound, stream, owned=False))
            self._arrived.set()

    def accept(self) -> tuple[XSocket, str]:
        """The next connection and its peer's address. Raises SocketError EINVAL, ENETDOWN."""
        if self._arrived is None or self._shared is None:
            raise socket_error(errno.EINVAL, "the socket does not listen")
        end = self._run(self._accept(self._arrived, self._shared), self._timeout)
        accepted = XSocket(XSOCK_STREAM)
        accepted._shared = self._shared
        self._shared.users += 1
        accepted._take(end)
        return accepted, str(end.stream.remote)

    async def _accept(self, arrived: asyncio.Event, shared: _Shared) -> StreamEnd:
        while not self._waiting:
            if shared.bound.driver.closed:
                raise socket_error(errno.ENETDOWN, "the node process is gone")
            arrived.clear()
            await arrived.wait()
        return self._waiting.popleft()

    def _take(self, end: StreamEnd) -> None:
        self._reader, self._writer = XReader(end), XWriter(end)
        self._peer = end.stream.remote

    def connect(self, address: str) -> None:
        """Connects a stream, or sets a datagram socket's peer.

        Raises SocketError: EISCONN, ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT, ENOENT, EINVAL.
        """
        if self.type == XSOCK_DGRAM:
            self._run(self._connect_datagram(address))
            return
        if self._writer is not None:
            raise socket_error(errno.EISCONN, "the socket is connected already")
        self._run(self._connect(address), self._timeout or None)

    async def _connect(self, address: str) -> None:
        remote = await (await _stack()).resolve(address)
        shared = await self._bind(KeyPair.generate())
        end = StreamEnd(shared.bound, shared.bound.connect(remote), owned=False)
        try:
            await end.connected()
        except (asyncio.CancelledError, OSError):
            end.abort()
            raise
        self._take(end)

    async def _connect_datagram(self, address: str) -> None:
        remote = await (await _stack()).resolve(address)
        await self._bind(None)
        if self._datagram is not None:
            self._datagram.connect(remote)
        self._peer = remote

    def send(self, data: bytes, flags: int = 0) -> int:
        """Sends all of `data`, or one datagram to the peer; returns its length. Waits while buffers are full.

        Raises SocketError ENOTCONN, EPIPE, ECONNRESET, EMSGSIZE.
        """
        if self.type == XSOCK_DGRAM:
            if self._peer is None:
                raise socket_error(errno.EDESTADDRREQ, "the socket is not connected")
            return self.sendto(data, flags)
        if self._writer is None:
            raise socket_error(errno.ENOTCONN, "the socket is not connected")
        self._run(self._send(self._writer, data), self._timeout or None)
        return len(data)

    async def _send(self, writer: XWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """As `send`, which already sends everything."""
        self.send(data, flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Up to `size` bytes of the stream (b"" at its end), or one datagram cut to `size`.

        flags: MSG_PEEK leaves them there. Raises SocketError ENOTCONN, ECONNRESET, ...
        """
        if self.type == XSOCK_DGRAM:
            return self.recvfrom(size, flags)[0]
        if self._reader is None:
            raise socket_error(errno.ENOTCONN, "the socket is not connected")
        return self._run(self._recv(self._reader, size, flags), self._timeout)

    async def _recv(self, reader: XReader, size: int, flags: int) -> bytes:
        data = await reader.read(size)
        if flags & MSG_PEEK:
            reader.unread(data)
        return data

    def recv_into(self, buffer: bytearray | memoryview, size: int = 0) -> int:
        """As `recv` into a buffer; returns how many bytes."""
        data = self.recv(size or len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def shutdown(self, how: int) -> None:
        """SHUT_WR and SHUT_RDWR close the sending direction of a stream."""
        if self._writer is None:
            raise socket_error(errno.ENOTCONN, "the socket is not connected")
        if how != SHUT_RD:
            blocking.shared().call(self._writer.write_eof)

    # Datagrams

    def sendto(self, data: bytes, flags_or_address: int | str = 0, address: str | None = None) -> int:
        """`sendto(data, address)` or `sendto(data, flags, address)`: one datagram; returns its length.

        A socket that is not bound gets a fresh SID without a key. Raises SocketError EISCONN (a connected
        stream), EMSGSIZE, ENOENT, EINVAL.
        """
        to = flags_or_address if isinstance(flags_or_address, str) else address
        if self.type == XSOCK_STREAM:
            number = errno.EISCONN if self._writer is not None else errno.ENOTCONN
            raise socket_error(number, "a stream socket has no other addresses")
        self._run(self._sendto(data, to), self._timeout or None)
        return len(data)

    async def _sendto(self, data: bytes, address: str | None) -> None:
        to = await (await _stack()).resolve(address) if address is not None else None
        await self._bind(None)
        if self._datagram is not None and not self._datagram.send(data, to):
            raise socket_error(errno.ENOBUFS, "the send queue is full")

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, str]:
        """One datagram, cut to `size`, and its source. Raises SocketError ENETDOWN, EINVAL (not bound)."""
        self._need(XSOCK_DGRAM)
        if self._datagram is None:
            raise socket_error(errno.EINVAL, "the socket is not bound and has sent nothing")
        payload, source = self._run(self._recvfrom(self._datagram, flags), self._timeout)
        return payload[:size], str(source)

    async def _recvfrom(self, datagram: XDatagram, flags: int) -> tuple[bytes, DAG]:
        got = await datagram.recv()
        if flags & MSG_PEEK:
            datagram.unread(got)
        return got

    # Names

    def getsockname(self) -> str:
        """The socket's own address at present. Raises SocketError EINVAL when not bound."""
        if self._shared is None:
            raise socket_error(errno.EINVAL, "the socket is not bound")
        return str(self._shared.bound.endpoint.local)

    def getpeername(self) -> str:
        """The peer's address at present. Raises SocketError ENOTCONN."""
        if self._writer is not None:
            return str(self._writer.get_extra_info("peer_dag"))
        if self._peer is None:
            raise socket_error(errno.ENOTCONN, "the socket is not connected")
        return str(self._peer)

    @property
    def listening(self) -> bool:
        """True after `listen`."""
        return self._arrived is not None

    def _need(self, kind: int) -> None:
        if self.type != kind:
            raise socket_error(errno.EOPNOTSUPP, "not for a socket of this type")


def register_name(name: str, address: str) -> None:
    """Gives `name` to an address whose SID a socket of this process has bound. Raises SocketError EACCES.

    With a name server in the lab the registration is signed with the SID's key, which must be in the key
    store, and follows this host when it moves for as long as the process lives; else the hosts file takes
    the name.
    """
    dag = DAG.parse(address)
    key = keystore.key_of(dag.intent) if dag.intent.type == XidType.SID else None

    async def register() -> None:
        known = await _stack()
        held = _held.pop(name, None)
        if held is not None:
            held.close()
        if key is not None and (await known.request("names"))["name_server"] is not None:
            _held[name] = await NameHold.hold(known, name, key)
        else:
            await known.request("register", name=name, dag=str(dag))

    try:
        blocking.shared().run(register())
    except XiatbError as error:
        raise from_xiatb(error) from error


def request(op: str, **fields: object) -> dict[str, Any]:
    """One request to the node process, blocking. Raises SocketError."""

    async def ask() -> dict[str, Any]:
        return await (await _stack()).request(op, **fields)

    try:
        return blocking.shared().run(ask())
    except XiatbError as error:
        raise from_xiatb(error) from error


__all__ = [
    "MSG_PEEK",
    "SHUT_RD",
    "SHUT_RDWR",
    "SHUT_WR",
    "XSOCK_DGRAM",
    "XSOCK_RAW",
    "XSOCK_STREAM",
    "XSocket",
]
