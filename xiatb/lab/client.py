"""Blocking clients of the lab's and the nodes' control sockets (JSON lines over UNIX sockets).

Both speak the protocol of `xiatb.node.control_protocol`: request `{"id","op",...}`, answer `{"id","ok",
"result"|"error"}`, events `{"event",...}` in between.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xiatb.errors import DeadlineError, LabStateError, XiatbError
from xiatb.lab.paths import LabPaths
from xiatb.lab.state import no_such_lab
from xiatb.node.control_protocol import ControlError, LineDecoder, decode, encode

Json = dict[str, Any]


class SocketGoneError(XiatbError):
    """Nobody listens at a control socket, or it was closed in the middle of an answer."""


class ControlClient:
    """One connection. Not for several threads at once."""

    def __init__(self, path: Path, *, timeout: float = 10.0) -> None:
        """Connect. Raises SocketGoneError."""
        self.path = path
        self._timeout = timeout
        self._decoder = LineDecoder(64 << 20)
        self._lines: list[bytes] = []
        self._numbers = itertools.count(1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise SocketGoneError(f"{path}: {error.strerror or error}") from error

    def request(
        self, op: str, *, timeout: float | None = None, params: Json | None = None, **fields: Any
    ) -> Json:
        """One request; its result. Events in between are dropped. `timeout` is the longest silence borne
        here; `params` are further fields, for names that clash with ours. Raises ControlError,
        DeadlineError, SocketGoneError."""
        result: Json = {}
        for message in self._exchange(op, timeout, {**fields, **(params or {})}):
            if "event" not in message:
                result = message
        return result

    def stream(
        self, op: str, *, timeout: float | None = None, params: Json | None = None, **fields: Any
    ) -> Iterator[Json]:
        """One request; every event as it comes and last {"event": "result", ...result}. `timeout` is the
        longest silence, None for ever. Raises as `request`."""
        for message in self._exchange(op, timeout or 1e9, {**fields, **(params or {})}):
            yield message if "event" in message else {"event": "result", **message}

    def close(self) -> None:
        """Close the connection; what it had under way at the server ends."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, op: str, timeout: float | None, fields: Json) -> Iterator[Json]:
        number = next(self._numbers)
        wait = self._timeout if timeout is None else timeout
        try:
            self._socket.sendall(encode({"id": number, "op": op, **fields}))
        except OSError as error:
            raise SocketGoneError(f"{self.path}: {error.strerror or error}") from error
        while True:
            message = self._read(op, wait)
            if "event" in message:
                if message.get("id") in (None, number):
                    yield message
            elif message.get("id") == number:
                if message.get("ok"):
                    yield message["result"]
                    return
                raise _error(message.get("error") or {})

    def _read(self, op: str, timeout: float) -> Json:
        deadline = time.monotonic() + timeout
        while not self._lines:
            self._socket.settimeout(min(max(deadline - time.monotonic(), 0.001), 1e6))
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError as error:
                raise DeadlineError(f"{self.path}: no answer to {op} in {timeout:g} s") from error
            except OSError as error:
                raise SocketGoneError(f"{self.path}: {error.strerror or error}") from error
            if not data:
                raise SocketGoneError(f"{self.path}: closed in the middle of {op}")
            self._lines += self._decoder.feed(data)
        return decode(self._lines.pop(0))


def _error(told: Json) -> XiatbError:
    code, message = str(told.get("code", "EPROTO")), str(told.get("message", "no reason given"))
    hint = str(told.get("hint", ""))
    if code == "ETIMEDOUT":
        return DeadlineError(message, hint=hint)
    return ControlError(code, message, hint=hint)


class LabClient(ControlClient):
    """The supervisor of a lab that is up."""

    def __init__(self, lab: str, *, timeout: float = 10.0) -> None:
        """Connect. Raises LabStateError when there is no such lab or its supervisor is dead."""
        paths = LabPaths(lab)
        try:
            super().__init__(paths.socket, timeout=timeout)
        except SocketGoneError as error:
            if not paths.journal.exists():
                raise no_such_lab(lab) from error
            hint = f"remove what is left: xiatb down {lab}"
            raise LabStateError(f"the supervisor of {lab} does not answer", hint=hint) from error


def ask_node(paths: LabPaths, node: str, op: str, *, timeout: float = 5.0, **fields: Any) -> Json:
    """One request to a node process over a connection of its own. Raises as `ControlClient`."""
    with ControlClient(paths.control(node), timeout=timeout) as client:
        return client.request(op, **fields)
