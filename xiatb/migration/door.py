"""Where streams of peers come in: strangers can be among them until a stream has proved who is there.

Such half-open streams have little time and few places of their own, so that they cannot keep out a peer nor
touch the streams of one that is known. When the places are taken the oldest makes room: a peer needs a few
round trips, a stranger that holds a place has had them. The same goes for the places of one host, since whose
they are is not proved: a stranger's address may lead through its own host and name a peer's behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from xiatb.errors import WireError, XiatbError
from xiatb.migration import frames
from xiatb.migration.channels import read_frame
from xiatb.migration.tlswire import CLIENT_HELLO, TlsIdentity
from xiatb.migration.wirestream import Wire

log = logging.getLogger("xiatb.migration")
HALF_OPEN_S = 12.0
"""For all until a stream is known: its first frame, and a control stream's handshake. A path that stalls for
ten seconds must not cost a peer its channel."""
MAX_HALF_OPEN = 64
MAX_OF_ONE = 16
"""Half-open streams of one host. A peer opens those of a kind one after the other."""
MAX_STREAMS = 128
"""Streams of peers that are known: a job has 35 at the most."""
Admitted = Callable[[], None]
"""To be called once it is known who is there; raises WireError when there are too many streams."""


class Takers(Protocol):
    """Who goes on with a stream; both own it."""

    async def on_control(self, wire: Wire, first: bytes, admitted: Admitted) -> None:
        """A control stream; `first` is its first frame."""

    async def on_channel(self, wire: Wire, body: bytes, pin: str, admitted: Admitted) -> None:
        """A channel; `body` is that of its first frame, `pin` the hash of the certificate that it has shown,
        "" when it is not encrypted."""


class Door:
    """One per daemon."""

    def __init__(self, tls: TlsIdentity, takers: Takers) -> None:
        self._tls = tls
        self._takers = takers
        self._half_open: dict[asyncio.Timeout, str] = {}
        self._known = 0

    async def on_wire(self, wire: Wire) -> None:
        """A stream, until its end."""
        origin = wire.origin()
        same = [limit for limit, one in self._half_open.items() if one == origin] if origin else []
        if len(same) >= MAX_OF_ONE:
            log.warning("%s has %d streams that say nothing", origin, len(same))
            self._drop(same[0])
        elif len(self._half_open) >= MAX_HALF_OPEN:
            self._drop(next(iter(self._half_open)))
        known = False

        def admitted() -> None:
            nonlocal known
            if self._known >= MAX_STREAMS:
                raise WireError(f"{MAX_STREAMS} streams are open")
            if self._half_open.pop(limit, None) is None:
                raise WireError("it had to make room")
            limit.reschedule(None)
            known = True
            self._known += 1

        try:
            async with asyncio.timeout(HALF_OPEN_S) as limit:
                self._half_open[limit] = origin
                await self._take(wire, admitted)
        except (XiatbError, OSError, TimeoutError) as error:
            log.warning("a peer's stream was dropped: %s", error or type(error).__name__)
            wire.abort()
        finally:
            self._half_open.pop(limit, None)
            self._known -= known

    def _drop(self, limit: asyncio.Timeout) -> None:
        del self._half_open[limit]
        limit.reschedule(asyncio.get_running_loop().time())

    async def _take(self, wire: Wire, admitted: Admitted) -> None:
        """Its first frame says whether it is a control stream or a channel."""
        pin, first = "", await wire.read(1)
        if first == bytes([CLIENT_HELLO]):
            secured = await self._tls.accept(wire, first)
            wire, pin, first = secured, secured.pin, b""
        kind, body = await read_frame(wire, first)
        if kind == frames.CHANNEL:
            await self._takers.on_channel(wire, body, pin, admitted)
        elif pin:
            raise WireError("a control stream does not speak TLS")
        else:
            await self._takers.on_control(wire, frames.pack(kind, body), admitted)
