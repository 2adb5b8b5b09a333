"""A stream connection as an asyncio pair: `XReader` and `XWriter`, shaped after asyncio's own.

Both stand on one `StreamEnd`, which turns the events of the sans-IO stream into wake-ups. Bytes wait
in the stream's own buffers; what `write` cannot place there waits in the writer until `drain`.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from typing import Any

from xiatb.errors import XiatbError
from xiatb.node.bound import BoundEndpoint
from xiatb.node.socket_errors import SocketError, from_xiatb, socket_error
from xiatb.transport.errors import StreamError
from xiatb.transport.events import Event, EventKind
from xiatb.transport.stream import State, Stream

_DELIVERED = frozenset((State.FIN_WAIT_2, State.TIME_WAIT, State.CLOSED))
"""States in which the peer has acknowledged everything that was written, FIN included."""
_MAX_LINE = 64 * 1024
_READ_CHUNK = 1 << 20


class StreamEnd:
    """One stream of a bound endpoint, with the tasks that wait for it.

    owned: the endpoint serves this stream only and is closed when the stream is over.
    """

    def __init__(self, bound: BoundEndpoint, stream: Stream, *, owned: bool) -> None:
        self.bound = bound
        self.stream = stream
        self.failure: SocketError | None = None
        self.over = False
        self._owned = owned
        self._loop = asyncio.get_running_loop()
        self._overflow: deque[memoryview] = deque()
        self._eof_wanted = False
        self._close_wanted = False
        self._readers: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.Future[None]] = []
        self._connect: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        bound.users[stream] = self

    # Events

    def handle(self, event: Event) -> None:
        """Takes an event of the stream (called by the bound endpoint)."""
        kind = event.kind
        if kind is EventKind.READABLE or kind is EventKind.EOF:
            _wake(self._readers)
        elif kind is EventKind.WRITABLE:
            self._flush()
        elif kind is EventKind.CONNECTED:
            self._connected(None)
        elif kind is EventKind.CLOSED:
            self._end()

    def settle(self) -> None:
        """Looks whether everything written has been delivered (called while closing)."""
        if self.stream.state in _DELIVERED and not self._closed.done():
            self._closed.set_result(None)

    def fail(self, error: XiatbError) -> None:
        """The node process is gone (called by the bound endpoint)."""
        self.failure = from_xiatb(error)
        self._end()

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        if self.failure is None and self.stream.error is not None:
            self.failure = from_xiatb(self.stream.error)
        self._overflow.clear()
        self._connected(self.failure)
        _wake(self._readers)
        _wake(self._writers)
        self.bound.users.pop(self.stream, None)
        self.bound.closing.discard(self)
        if not self._closed.done():
            self._closed.set_result(None)
        if self._owned and not self.bound.driver.closed:
            # One more pass first, so that a RST that is due still goes out.
            self._loop.call_soon(self._retire)

    def _retire(self) -> None:
        self.bound.driver.pump()
        self.bound.close()

    def _connected(self, failure: SocketError | None) -> None:
        waiter, self._connect = self._connect, None
        if waiter is not None and not waiter.done():
            if failure is not None:
                waiter.set_exception(failure)
            else:
                waiter.set_result(None)

    # Waiting

    async def connected(self) -> None:
        """Waits for the handshake. Raises SocketError (ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT, ...)."""
        if self.failure is not None:
            raise self.failure
        if self.stream.state < State.ESTABLISHED:
            self._connect = self._loop.create_future()
            self.bound.driver.poke()
            await self._connect

    async def until_readable(self) -> None:
        """Waits for bytes, the end of the stream, or its failure."""
        await self._wait(self._readers)

    async def until_writable(self) -> None:
        """Waits until all that was written is in the stream's own buffer. Raises SocketError."""
        while self._overflow and not self.over:
            await self._wait(self._writers)
        if self.failure is not None:
            raise self.failure

    async def _wait(self, waiters: list[asyncio.Future[None]]) -> None:
        waiter = self._loop.create_future()
        waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in waiters:
                waiters.remove(waiter)

    async def until_closed(self) -> None:
        """Waits until the peer has everything that was written, or the stream has failed."""
        await asyncio.shield(self._closed)

    # Output

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Takes all of `data`. Raises SocketError EPIPE after `write_eof` or `close`."""
        if self._eof_wanted:
            raise socket_error(errno.EPIPE, "this side of the stream is closed")
        if self.over or not data:
            return
        kept = data if isinstance(data, bytes) else bytes(data)
        taken = 0 if self._overflow else self._place(kept)
        if taken < len(kept) and not self.over:
            self._overflow.append(memoryview(kept)[taken:])

    def _place(self, data: bytes | memoryview) -> int:
        try:
            return self.stream.write(data)
        except StreamError:
            # The stream tells of its end by an event; until then nothing more fits.
            return 0

    def _flush(self) -> None:
        overflow = self._overflow
        while overflow:
            piece = overflow[0]
            taken = self._place(piece)
            if taken < len(piece):
                overflow[0] = piece[taken:]
                return
            overflow.popleft()
        if self._eof_wanted:
            self._finish_output()
        _wake(self._writers)

    def write_eof(self) -> None:
        """Closes this direction after all that was written."""
        if not self._eof_wanted:
            self._eof_wanted = True
            if not self._overflow:
                self._finish_output()

    def close(self) -> None:
        """Closes both directions; what was written is still delivered."""
        self._close_wanted = self._eof_wanted = True
        self.bound.closing.add(self)
        if not self._overflow:
            self._finish_output()

    def _finish_output(self) -> None:
        if self.over:
            return
        if self._close_wanted:
            self.stream.close(time.monotonic())
        else:
            self.stream.shutdown()
        self.bound.driver.poke()

    def abort(self) -> None:
        """Ends the connection at once."""
        if not self.over:
            self.stream.abort("aborted by the application")
            self._end()
            self.bound.driver.poke()

    @property
    def backlog(self) -> int:
        """Bytes written that the stream's own buffer has not taken yet."""
        return sum(len(piece) for piece in self._overflow)

    @property
    def closing(self) -> bool:
        """True once this side is closed or the stream is over."""
        return self._close_wanted or self.over


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


class XReader:
    """The reading side of a stream; errors are `SocketError`s."""

    def __init__(self, end: StreamEnd) -> None:
        self._end = end
        self._kept = bytearray()

    def at_eof(self) -> bool:
        """True when the peer has closed its direction and everything has been read."""
        end = self._end
        return not self._kept and (end.stream.at_eof or (end.over and not end.stream.readable))

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes, at least one; b"" at the end of the stream. -1: everything until the end."""
        if n < 0:
            return await self._read_all()
        if n == 0:
            return b""
        if self._kept:
            data = bytes(self._kept[:n])
            del self._kept[:n]
            return data + self._end.stream.read(n - len(data))
        stream = self._end.stream
        while True:
            data = stream.read(n)
            if data or not await self._more():
                return data

    def unread(self, data: bytes) -> None:
        """Puts bytes back that were read; the next read gives them first."""
        self._kept[:0] = data

    async def _more(self) -> bool:
        """Waits until there may be bytes; False at the end. Raises SocketError."""
        end = self._end
        if end.stream.readable:
            return True
        if end.failure is not None:
            raise end.failure
        if end.stream.at_eof or end.over:
            return False
        await end.until_readable()
        return True

    async def _read_all(self) -> bytes:
        parts = []
        while data := await self.read(_READ_CHUNK):
            parts.append(data)
        return b"".join(parts)

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes. Raises asyncio.IncompleteReadError at the end, SocketError."""
        result = bytearray(n)
        view = memoryview(result)
        done = min(n, len(self._kept))
        view[:done] = self._kept[:done]
        del self._kept[:done]
        stream = self._end.stream
        while done < n:
            got = stream.read_into(view[done:])
            done += got
            if not got and not await self._more():
                raise asyncio.IncompleteReadError(bytes(view[:done]), n)
        return bytes(result)

    async def readuntil(self, separator: bytes = b"\n", limit: int = _MAX_LINE) -> bytes:
        """Bytes up to and with `separator`. Raises IncompleteReadError at the end, LimitOverrunError."""
        kept = self._kept
        start = 0
        while (found := kept.find(separator, start)) < 0:
            if len(kept) > limit:
                raise asyncio.LimitOverrunError(
                    "separator is not found, and the limit is exceeded", len(kept)
                )
            start = max(0, len(kept) - len(separator) + 1)
            data = self._end.stream.read(limit)
            if data:
                kept += data
            elif not await self._more():
                partial = bytes(kept)
                kept.clear()
                raise asyncio.IncompleteReadError(partial, None)
        size = found + len(separator)
        line = bytes(kept[:size])
        del kept[:size]
        return line

    async def readline(self) -> bytes:
        """One line with its newline; what is left without one at the end of the stream."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return bytes(error.partial)


class XWriter:
    """The writing side of a stream, and its life; errors are `SocketError`s."""

    def __init__(self, end: StreamEnd) -> None:
        self._end = end

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends `data`; call `drain` afterwards, so that no more than one write waits here."""
        self._end.write(data)

    def writelines(self, parts: list[bytes | bytearray | memoryview]) -> None:
        """Writes every part."""
        for part in parts:
            self._end.write(part)

    async def drain(self) -> None:
        """Waits until all that was written fits the stream's send buffer. Raises SocketError."""
        await self._end.until_writable()

    def write_eof(self) -> None:
        """Closes this direction after all that was written; reading goes on."""
        self._end.write_eof()

    def can_write_eof(self) -> bool:
        """Always true."""
        return True

    def close(self) -> None:
        """Closes both directions; what was written is still delivered, see `wait_closed`."""
        self._end.close()

    def is_closing(self) -> bool:
        """True once `close` was called or the stream is over."""
        return self._end.closing

    async def wait_closed(self) -> None:
        """Waits until the peer has everything that was written, or the stream has failed."""
        await self._end.until_closed()

    def abort(self) -> None:
        """Ends the connection at once with a reset; nothing more is delivered."""
        self._end.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """ "peer_dag", "local_dag" (DAG), "stats" (dict), "stream" (transport.Stream), "backlog" (bytes)."""
        end = self._end
        if name == "peer_dag":
            return end.stream.remote
        if name == "local_dag":
            return end.stream.local
        if name == "stats":
            return {**end.stream.stats(), "backlog": end.backlog, "socket": end.bound.driver.counters()}
        if name == "stream":
            return end.stream
        if name == "backlog":
            return end.backlog
        return default
