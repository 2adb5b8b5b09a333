"""The daemon's UNIX socket nodes/<hv>/migrated.sock: JSON lines, as on a node's control socket.

Request `{"id", "op", ...}`; events `{"id", "event", ...}` while it runs; then `{"id", "ok",
"result"|"error"}`. Ops: migrate {guest, to, storage, and the fields of
options.Options}, plan {as migrate}, cancel {guest}, show {guest}, set {guest, options.TUNABLE}, switch
{guest}, resume {guest}, status {}, states {guests}.

A migration goes on when the client that asked for it is gone: a broken client must not break it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.migration.failure import MigrationError
from xiatb.migration.options import Options, parse, parse_change
from xiatb.migration.service import MigrationService
from xiatb.node.control import ControlServer, Operation, Session
from xiatb.node.control_protocol import ControlError, Json, field

_OWN = ("id", "op", "guest", "to", "storage")
_LASTING = ("migrate", "plan", "set")
_SETTLE_S = 5.0


class DaemonSocket:
    """Serves the daemon's own users (the lab's supervisor)."""

    def __init__(self, path: Path, service: MigrationService) -> None:
        self._service = service
        self._server = ControlServer(path, self.table(), lasting=_LASTING, explain=_explained)

    async def start(self) -> None:
        """Listen, mode 0600; raises LabStateError when a daemon lives there already."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop listening; requests under way have a moment to end."""
        self._server.close()
        await self._server.settle(_SETTLE_S)

    def table(self) -> dict[str, Operation]:
        """The operations by name."""
        return {
            "migrate": self._migrate, "plan": self._plan, "cancel": self._cancel, "set": self._set,
            "switch": lambda session, request: self._accepted(self._service.switch, request),
            "show": lambda session, request: self._show(request),
            "resume": lambda session, request: self._accepted(self._service.resume, request),
            "status": lambda session, request: self._service.status(),
            "states": self._states,
        }  # fmt: skip

    async def _migrate(self, session: Session, request: Json) -> Json:
        def emit(event: Json) -> None:
            session.send({"id": request.get("id"), **event})

        guest, to, storage, options = _wanted(request)
        return await self._service.migrate(guest, to, storage=storage, emit=emit, options=options)

    async def _plan(self, session: Session, request: Json) -> Json:
        guest, to, storage, options = _wanted(request)
        return await self._service.plan(guest, to, storage=storage, options=options)

    def _cancel(self, session: Session, request: Json) -> Json:
        return {"cancelled": self._service.cancel(field(request, "guest", str))}

    async def _set(self, session: Session, request: Json) -> Json:
        changes = parse_change({k: v for k, v in request.items() if k not in _OWN})
        return await self._service.change(field(request, "guest", str), changes)

    def _show(self, request: Json) -> Json:
        return self._service.outgoing(field(request, "guest", str)).overview()

    def _accepted(self, act: Callable[[str], bool], request: Json) -> Json:
        return {"accepted": act(field(request, "guest", str))}

    async def _states(self, session: Session, request: Json) -> Json:
        names = [str(name) for name in field(request, "guests", list)]
        return {"states": await self._service.guest_states(names)}


def _wanted(request: Json) -> tuple[str, str, bool, Options]:
    """Guest, destination, whether with its storage, and options; raises ControlError, UsageError."""
    guest, to = field(request, "guest", str), field(request, "to", str)
    storage = field(request, "storage", bool, False)
    return guest, to, storage, parse({k: v for k, v in request.items() if k not in _OWN})


def _explained(error: XiatbError) -> Json:
    """The `error` of an answer; the code of an error that has none is the name of its kind."""
    code = error.code if isinstance(error, (ControlError, MigrationError)) else type(error).__name__
    told: dict[str, Any] = {
        "code": code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code,
    }  # fmt: skip
    if isinstance(error, MigrationError):
        told["result"] = error.result
    return told
