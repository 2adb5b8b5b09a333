"""How daemons reach each other: dial a peer, accept who dials; each gives a `Wire`.

Every dialled stream has an ephemeral SID of its own, because a stream is named by its pair of SIDs; who is
behind it is proved inside, by the handshake or a channel token.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from xiatb.identity.keys import KeyPair
from xiatb.migration.config import DaemonConfig, Peer
from xiatb.migration.wirestream import AsyncioWire, Wire, XiaWire
from xiatb.node import aio, stack
from xiatb.node.xstream import XReader, XWriter
from xiatb.transport.config import StreamConfig
from xiatb.wire.dag import DAG

MAX_RTO_S = 1.0
"""A path that was dead is tried again at least this often. With the transport's own ten seconds a stall of
ten seconds could cost a stopped guest twenty, more than its source waits for (source.SWITCHOVER_S)."""
CONFIG = StreamConfig(max_rto=MAX_RTO_S)
OnWire = Callable[[Wire], Awaitable[None]]


class Carrier(Protocol):
    """Dials and accepts."""

    async def serve(self, on_wire: OnWire) -> None:
        """Start to accept; `on_wire` runs as a task for each stream and owns it."""

    async def dial(self, peer: Peer, congestion: str = "") -> Wire:
        """A new stream to the peer's daemon, under the named congestion control ("": the default); raises
        OSError or XiatbError."""

    async def close(self) -> None:
        """Stop accepting."""


class XiaCarrier:
    """Streams over XIA, on the node whose control socket is given."""

    def __init__(self, key: KeyPair, control: Path) -> None:
        self._key = key
        self._control = control
        self._server: aio.XServer | None = None

    async def serve(self, on_wire: OnWire) -> None:
        """See Carrier; binds the daemon's SID."""

        async def accept(reader: XReader, writer: XWriter) -> None:
            await on_wire(XiaWire(reader, writer))

        where = stack.default(self._control)
        self._server = await aio.start_server(accept, self._key, stack=where, config=CONFIG)

    async def dial(self, peer: Peer, congestion: str = "") -> Wire:
        """See Carrier."""
        reader, writer = await aio.open_connection(
            DAG.parse(peer.address),
            stack=stack.default(self._control),
            config=replace(CONFIG, congestion=congestion) if congestion else CONFIG,
        )
        return XiaWire(reader, writer)

    async def close(self) -> None:
        """See Carrier."""
        if self._server is not None:
            self._server.close()


class UnixCarrier:
    """Streams over UNIX sockets: tests of daemons without a network between them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: asyncio.Server | None = None

    async def serve(self, on_wire: OnWire) -> None:
        """See Carrier."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await on_wire(AsyncioWire(reader, writer))

        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(accept, str(self._path))

    async def dial(self, peer: Peer, congestion: str = "") -> Wire:
        """See Carrier; a UNIX socket has no congestion control."""
        return AsyncioWire(*await asyncio.open_unix_connection(peer.address))

    async def close(self) -> None:
        """See Carrier."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink()


def carrier_for(config: DaemonConfig, key: KeyPair) -> Carrier:
    """The carrier that the configuration asks for."""
    if config.carrier == "unix" or config.node_control is None:
        return UnixCarrier(Path(config.listen))
    return XiaCarrier(key, config.node_control)
