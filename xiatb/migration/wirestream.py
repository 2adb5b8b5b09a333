"""The seam between relays and what carries them: a full-duplex byte stream whose send backlog can be bounded.

`XiaWire` is the one used in a lab (an XIA stream, `xiatb.node.aio`); `AsyncioWire` wraps a pair of asyncio
streams and serves tests and the baseline over TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from xiatb.node.xstream import XReader, XWriter
from xiatb.transport.stream import Stream


class Wire(Protocol):
    """A reliable byte stream to the peer daemon."""

    async def read(self, limit: int) -> bytes:
        """Up to `limit` bytes, b"" at the peer's end of stream; OSError or XiatbError when it broke."""

    async def write(self, data: bytes) -> None:
        """Take `data`, waiting while more than the bound set by `set_bound` is neither sent nor
        acknowledged."""

    def write_eof(self) -> None:
        """No more bytes will come from this side; the other direction stays open."""

    def set_bound(self, limit: int) -> None:
        """At most about `limit` bytes may wait in this stream, on their way included."""

    def backlog(self) -> int:
        """Bytes written but not yet acknowledged by the peer, as far as this side can know."""

    def round_trip(self) -> float:
        """Smallest round-trip time seen in seconds, 0.0 when unknown."""

    def origin(self) -> str:
        """The host that the stream comes from (its HID), "" when unknown. It is routed to, not proved."""

    def abort(self) -> None:
        """End both directions at once, without delivering what is left."""

    async def close(self) -> None:
        """Deliver what is left, then end."""


class OuterWire:
    """What a `Wire` that carries its bytes inside another leaves to that one. How bytes go in and out, and
    how it ends, is its own."""

    def __init__(self, inner: Wire) -> None:
        self._inner = inner

    def set_bound(self, limit: int) -> None:
        """See Wire."""
        self._inner.set_bound(limit)

    def backlog(self) -> int:
        """See Wire."""
        return self._inner.backlog()

    def round_trip(self) -> float:
        """See Wire."""
        return self._inner.round_trip()

    def origin(self) -> str:
        """See Wire."""
        return self._inner.origin()

    def abort(self) -> None:
        """See Wire."""
        self._inner.abort()


class AsyncioWire:
    """A `Wire` over asyncio's StreamReader and StreamWriter."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, limit: int) -> bytes:
        """See Wire."""
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        """See Wire."""
        self._writer.write(data)
        await self._writer.drain()

    def write_eof(self) -> None:
        """See Wire."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    def set_bound(self, limit: int) -> None:
        """See Wire; the kernel's socket buffer is not counted."""
        self._writer.transport.set_write_buffer_limits(high=limit, low=limit // 2)

    def backlog(self) -> int:
        """See Wire; bytes in this process only."""
        return self._writer.transport.get_write_buffer_size()

    def round_trip(self) -> float:
        """See Wire."""
        return 0.0

    def origin(self) -> str:
        """See Wire."""
        return ""

    def abort(self) -> None:
        """See Wire."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """See Wire."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class XiaWire:
    """A `Wire` over an XIA stream: reader and writer of `xiatb.node.aio`."""

    def __init__(self, reader: XReader, writer: XWriter) -> None:
        self._reader, self._writer = reader, writer
        self._stream: Stream = writer.get_extra_info("stream")

    async def read(self, limit: int) -> bytes:
        """See Wire."""
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        """See Wire."""
        self._writer.write(data)
        await self._writer.drain()

    def write_eof(self) -> None:
        """See Wire."""
        self._writer.write_eof()

    def set_bound(self, limit: int) -> None:
        """See Wire."""
        self._stream.set_send_limit(limit)

    def backlog(self) -> int:
        """See Wire."""
        return self._stream.unsent + self._stream.unacked + int(self._writer.get_extra_info("backlog"))

    def round_trip(self) -> float:
        """See Wire."""
        return float(self._stream.stats()["min_rtt"] or 0.0)

    def origin(self) -> str:
        """See Wire."""
        return str(self._stream.remote.intent_hid or "")

    def abort(self) -> None:
        """See Wire."""
        self._writer.abort()

    async def close(self) -> None:
        """See Wire."""
        self._writer.close()
        await self._writer.wait_closed()
