"""The daemon's UNIX socket nodes/<hv>/migrated.sock: JSON lines, as on a node's control socket.

Request `{"id", "op", ...}`; events `{"id", "event", ...}` while it runs; then `{"id", "ok",
"result"|"error"}`. Ops: migrate {guest, to, storage, and the fields of
options.Options}, plan {as migrate}, cancel {guest}, set {guest, options.TUNABLE}, switch {guest}, resume
{guest}, status {}, states {guests}.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.migration.options import parse, parse_change
from xiatb.migration.service import MigrationError, MigrationService
from xiatb.node.control import listening_socket
from xiatb.node.control_protocol import (
    ControlError,
    Json,
    LineDecoder,
    LineTooLongError,
    decode,
    encode,
    failed,
    field,
)

_OWN = ("id", "op", "guest", "to", "storage")
log = logging.getLogger("xiatb.migration")


class DaemonSocket:
    """Serves the daemon's own users (the lab's supervisor)."""

    def __init__(self, path: Path, service: MigrationService) -> None:
        self._path = path
        self._service = service
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, mode 0600; raises LabStateError when a daemon lives there already."""
        self._server = await asyncio.start_unix_server(self._client, sock=listening_socket(self._path))

    async def stop(self) -> None:
        """Stop listening; requests under way go on until their migrations end."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5.0)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = LineDecoder()
        with contextlib.suppress(OSError):
            try:
                while data := await reader.read(65536):
                    for line in decoder.feed(data):
                        task = asyncio.ensure_future(self._answer(line, writer))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
            except LineTooLongError as error:
                writer.write(encode(failed(None, error)))
        # Migrations that the client asked for go on: a broken client must not break them.

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        request_id: object = None

        def say(message: Json) -> None:
            if not writer.is_closing():
                writer.write(encode({"id": request_id, **message}))

        try:
            request = decode(line)
            request_id = request.get("id")
            say({"ok": True, "result": await self._serve(request, say)})
        except XiatbError as error:
            code = error.code if isinstance(error, (ControlError, MigrationError)) else type(error).__name__
            told: dict[str, Any] = {
                "code": code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code,
            }  # fmt: skip
            if isinstance(error, MigrationError):
                told["result"] = error.result
            say({"ok": False, "error": told})

    async def _serve(self, request: Json, say: Any) -> Json:
        op = field(request, "op", str)
        if op in ("migrate", "plan"):
            guest, to = field(request, "guest", str), field(request, "to", str)
            storage = field(request, "storage", bool, False)
            options = parse({k: v for k, v in request.items() if k not in _OWN})
            if op == "plan":
                return await self._service.plan(guest, to, storage=storage, options=options)
            return await self._service.migrate(guest, to, storage=storage, emit=say, options=options)
        if op == "cancel":
            return {"cancelled": self._service.cancel(field(request, "guest", str))}
        if op == "set":
            wanted = parse_change({k: v for k, v in request.items() if k not in _OWN})
            return await self._service.change(field(request, "guest", str), wanted)
        if op in ("switch", "resume"):
            guest = field(request, "guest", str)
            return {"accepted": getattr(self._service, op)(guest)}
        if op == "status":
            return self._service.status()
        if op == "states":
            names = [str(name) for name in field(request, "guests", list)]
            return {"states": await self._service.guest_states(names)}
        raise ControlError("ENOSYS", f"unknown op {op[:40]!r}")
