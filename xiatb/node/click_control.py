"""Serves ControlSocket/1.3 on a node's `click.sock`, so that handlers can be read and written by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from xiatb.click.controlsocket import ControlSession
from xiatb.click.graph import Router
from xiatb.node.control import MAX_BACKLOG, listening_socket


class _Connection(asyncio.Protocol):
    """One client: bytes go through a sans-IO session."""

    def __init__(self, router: Router) -> None:
        self._session = ControlSession(router)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._session.greeting())

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        transport.write(self._session.feed(data))
        if transport.get_write_buffer_size() > MAX_BACKLOG:
            transport.abort()
        elif self._session.closed:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None


class ClickControl:
    """The listener of one node's graph."""

    def __init__(self, path: Path, router: Router) -> None:
        self._path = path
        self._router = router
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens (mode 0600). Raises LabStateError when another process does."""
        loop = asyncio.get_running_loop()
        sock = listening_socket(self._path)
        self._server = await loop.create_unix_server(lambda: _Connection(self._router), sock=sock)

    def close(self) -> None:
        """Stops listening and removes the socket file."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
