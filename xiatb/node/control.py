"""The server of a control socket: connections, sessions, dispatch. Node processes, the lab's supervisor and
the migration daemons have one each.

What a node's operations do is in `operations.py`. A session dies with its connection, and with it
everything the application held: its SIDs and subscriptions. So a SID of a killed process is free at
once, without any time-out. Requests under way die with it, too, but for those of the operations that the
server is told may outlive their clients.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

from xiatb.errors import LabStateError, XiatbError
from xiatb.node.control_protocol import (
    ControlError,
    Explain,
    Json,
    LineDecoder,
    LineTooLongError,
    decode,
    encode,
    explained,
    failed,
    ok,
)

MAX_BACKLOG = 8 << 20
"""Bytes a session may leave unread before it is cut off."""
MAX_TASKS = 64
"""Requests of one session that may be under way at once; and requests of all that may outlive theirs."""
UNFORESEEN = "a request has failed by a fault of this program"
"""It must neither leave the client waiting nor end the server."""

Operation = Callable[["Session", Json], Mapping[str, object] | Awaitable[Mapping[str, object]]]
log = logging.getLogger("xiatb.node")


class Session(asyncio.Protocol):
    """One client of the control socket."""

    def __init__(self, server: ControlServer) -> None:
        self.server = server
        self.subscribed = False
        self._decoder = LineDecoder()
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self.server.sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: lets go of all that the client held."""
        self._transport = None
        for task in self._tasks:
            task.cancel()
        self.server.forget(self)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: answers every complete line."""
        try:
            lines = self._decoder.feed(data)
        except LineTooLongError as error:
            self._refuse(None, error)
            if self._transport is not None:
                self._transport.close()
            return
        for line in lines:
            self._serve(line)

    def send(self, message: Mapping[str, object]) -> None:
        """Sends one message; a client that does not read is cut off rather than buffered for ever."""
        transport = self._transport
        if transport is None:
            return
        transport.write(encode(message))
        if transport.get_write_buffer_size() > MAX_BACKLOG:
            log.warning("a control client does not read: cut off")
            transport.abort()

    def _serve(self, line: bytes) -> None:
        request_id: object = None
        try:
            request = decode(line)
            request_id, name = request.get("id"), str(request.get("op"))
            operation = self.server.operations.get(name)
            if operation is None:
                raise ControlError("ENOSYS", f"unknown op {name[:40]!r}")
            answer = operation(self, request)
        except XiatbError as error:
            self._refuse(request_id, error)
            return
        except Exception:
            log.exception(UNFORESEEN)
            self._refuse(request_id, ControlError("EIO", "internal error"))
            return
        if isinstance(answer, Mapping):
            self.send(ok(request_id, answer))
            return
        tasks = self.server.outliving if name in self.server.lasting else self._tasks
        if len(tasks) >= MAX_TASKS:
            cast(Any, answer).close()
            self._refuse(request_id, ControlError("EAGAIN", "too many requests under way"))
        else:
            task = asyncio.ensure_future(self._finish(request_id, answer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _finish(self, request_id: object, answer: Awaitable[Mapping[str, object]]) -> None:
        try:
            self.send(ok(request_id, await answer))
        except XiatbError as error:
            self._refuse(request_id, error)
        except Exception:
            log.exception(UNFORESEEN)
            self._refuse(request_id, ControlError("EIO", "internal error"))

    def _refuse(self, request_id: object, error: XiatbError) -> None:
        self.send(failed(request_id, error, self.server.explain))


class ControlServer:
    """Listens on a UNIX socket that only its owner may open (mode 0600)."""

    def __init__(
        self,
        path: Path,
        operations: Mapping[str, Operation],
        on_gone: Callable[[Session], None] = lambda session: None,
        *,
        lasting: Collection[str] = (),
        explain: Explain = explained,
    ) -> None:
        """operations: by name; on_gone: called once with every session that has ended; lasting: names of the
        operations that go on when their client has gone; explain: the `error` of an answer."""
        self.path = path
        self.operations = operations
        self.lasting = frozenset(lasting)
        self.explain = explain
        self.sessions: set[Session] = set()
        self.outliving: set[asyncio.Task[None]] = set()
        self._on_gone = on_gone
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Starts to listen; takes the place of a dead process's socket. Raises LabStateError if one lives."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Session(self), sock=listening_socket(self.path))

    def forget(self, session: Session) -> None:
        """Called by a session whose connection is gone."""
        self.sessions.discard(session)
        self._on_gone(session)

    def publish(self, event: Mapping[str, object]) -> None:
        """Sends an event to every session that subscribed."""
        for session in list(self.sessions):
            if session.subscribed:
                session.send(event)

    def close(self) -> None:
        """Stops listening and removes the socket file."""
        if self._server is not None:
            self._server.close()
            self.path.unlink(missing_ok=True)

    async def settle(self, timeout: float) -> None:
        """Waits at most `timeout` seconds for the requests that may outlive their clients."""
        if self.outliving:
            await asyncio.wait(set(self.outliving), timeout=timeout)


def listening_socket(path: Path) -> socket.socket:
    """A listening UNIX socket at `path`, mode 0600. Raises LabStateError when a process listens there."""
    if path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
            else:
                raise LabStateError(f"{path}: a process already listens here")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(mask)
    sock.listen(64)
    return sock
