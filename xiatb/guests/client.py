"""The host's side of the guest agent: requests over the UNIX socket of the guest's second serial port.

QEMU serves one client of that socket at a time, so every request opens a connection of its own and
closes it; who comes meanwhile waits in the socket's backlog. Before a request the socket is found
anew, because the guest may have moved. Everything a guest sends is bounded and checked; whatever is
no answer to the request is dropped.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from xiatb.errors import DeadlineError, XiatbError
from xiatb.guests.agent.protocol import LineDecoder, Message, encode

Locate = Callable[[], Path]
"""Gives the path of the agent socket where the guest is now; raises XiatbError when it is nowhere."""

RETRY = 0.1
ATTEMPT = 10.0
IDEMPOTENT = {"ready", "uptime", "checksum", "counters", "write_file", "address", "exec_poll"}
"""Requests that may be sent again when no answer came (writing the same file twice gives the same file)."""

_MALFORMED = "a malformed answer"
_identifiers = itertools.count(int.from_bytes(os.urandom(4), "big") << 16)


class AgentError(XiatbError):
    """The guest's agent refused a request; `code` is its error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"guest agent: {message}")
        self.code = code


def result_of(answer: Message) -> Message:
    """The result in an answer; raises AgentError when it is a refusal or makes no sense."""
    if answer.get("ok") is True and isinstance(answer.get("result"), dict):
        return dict(answer["result"])
    error = answer.get("error")
    fields = error if isinstance(error, dict) else {}
    raise AgentError(
        _printable(fields.get("code", "EPROTO"), 40), _printable(fields.get("message", _MALFORMED), 500)
    )


def _printable(words: object, limit: int) -> str:
    """What a guest says, as words that may be shown: nothing in them steers a terminal."""
    return "".join(c if c.isprintable() else " " for c in str(words)[:limit])


class Exchange:
    """One request on one connection, without I/O: `opening` goes out, `feed` takes what comes in."""

    def __init__(self, request: Message) -> None:
        self.ident = next(_identifiers)
        self.opening = b"\n" + encode({**request, "id": self.ident})
        self._decoder = LineDecoder()

    def feed(self, data: bytes) -> Message | None:
        """The answer once it is complete; other messages and noise are dropped."""
        for message in self._decoder.feed(data):
            if message.get("id") == self.ident and "ok" in message:
                return message
        return None


class AgentClient:
    """Blocking client; safe to use from several threads. `locate` finds the socket for every attempt."""

    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    def request(self, message: Message, timeout: float = 30.0) -> Message:
        """The result of one request ({"op": ...}).

        A request in IDEMPOTENT is sent again, to wherever the guest is then, when an attempt was in vain.
        Raises AgentError when the agent refuses, DeadlineError when no answer comes in `timeout` seconds,
        XiatbError when the guest is nowhere.
        """
        end = time.monotonic() + timeout
        again = message.get("op") in IDEMPOTENT
        while True:
            left = end - time.monotonic()
            attempt = min(left, max(ATTEMPT, timeout / 4)) if again else left
            answer, sent = self._attempt(message, attempt)
            if answer is not None:
                return result_of(answer)
            if time.monotonic() >= end or (sent and not again):
                raise DeadlineError(
                    f"the guest's agent did not answer {message.get('op')!r} in {timeout:g} s"
                )
            _idle(min(RETRY, max(0.0, end - time.monotonic())))

    def _attempt(self, message: Message, timeout: float) -> tuple[Message | None, bool]:
        """(answer or None, whether the request may have reached the guest)."""
        exchange = Exchange(message)
        end = time.monotonic() + timeout
        sent = False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.settimeout(max(0.01, timeout))
                sock.connect(str(self._locate()))
                sent = True
                sock.sendall(exchange.opening)
                while (left := end - time.monotonic()) > 0:
                    sock.settimeout(left)
                    data = sock.recv(65536)
                    if not data:
                        break
                    if (answer := exchange.feed(data)) is not None:
                        return answer, True
            except OSError:
                return None, sent
        return None, sent

    def wait_ready(self, timeout: float, alive: Callable[[], None] = lambda: None) -> Message:
        """The agent's state once every service is up or has failed; calls `alive` between attempts, which
        raises when waiting makes no sense any more. Raises DeadlineError."""
        end = time.monotonic() + timeout
        state: Message = {}
        while (left := end - time.monotonic()) > 0:
            answer, _ = self._attempt({"op": "ready"}, min(1.0, left))
            try:
                state = result_of(answer) if answer is not None else state
            except AgentError as error:
                if error.code != "EBUSY":  # a slow guest finds all the questions asked so far at once
                    raise
            if state.get("ready") is True:
                return state
            alive()
            _idle(RETRY)
        said = state.get("services")
        services = said.items() if isinstance(said, dict) else ()
        waiting = [name for name, s in services if isinstance(s, dict) and s.get("state") == "starting"]
        names = _printable(", ".join(waiting), 500)
        text = f"services still starting: {names}" if waiting else "its agent does not answer"
        raise DeadlineError(f"the guest is not ready after {timeout:g} s: {text}")

    def execute(
        self,
        argv: Sequence[str],
        emit: Callable[[str, bytes], None],
        timeout: float,
        env: dict[str, str] | None = None,
    ) -> int:
        """Runs `argv` in the guest, hands its output to emit("stdout"|"stderr", bytes) as it comes, gives the
        exit code; after `timeout` seconds the command is killed and the code is 124."""
        end = time.monotonic() + timeout
        started = self.request({"op": "exec_start", "argv": list(argv), "env": env or {}}, min(30.0, timeout))
        if isinstance(code := started.get("code"), int):
            emit("stderr", f"{argv[0]}: cannot be run in the guest\n".encode())
            return code
        if not isinstance(job := started.get("job"), int):
            raise AgentError("EPROTO", _MALFORMED)
        offset = 0
        while True:
            state = self.request({"op": "exec_poll", "job": job, "ack": offset, "wait": 0.5}, 60.0)
            fresh = _pieces(state, offset)
            for name, data in fresh:
                emit(name, data)
                offset += len(data)
            if not fresh and isinstance(state.get("code"), int):
                return int(state["code"])
            if time.monotonic() >= end:
                self.request({"op": "exec_kill", "job": job}, 10.0)
                return 124


def _pieces(state: Message, offset: int) -> list[tuple[str, bytes]]:
    """The output pieces of an exec_poll answer that come at or after `offset`; hostile ones are dropped."""
    found: list[tuple[str, bytes]] = []
    position = state.get("start")
    pieces = state.get("pieces")
    if not isinstance(position, int) or not isinstance(pieces, list):
        return found
    for piece in pieces:
        if not (isinstance(piece, list) and len(piece) == 2 and piece[0] in ("stdout", "stderr")):
            return found
        try:
            data = base64.b64decode(str(piece[1]), validate=True)
        except (binascii.Error, ValueError):
            return found
        skip = max(0, offset - position)
        if data[skip:]:
            found.append((piece[0], data[skip:]))
        position += len(data)
    return found


def _idle(seconds: float) -> None:
    select.select([], [], [], seconds)


def fixed(path: Path) -> Locate:
    """A `Locate` for a guest that stays where it is."""
    return lambda: path
