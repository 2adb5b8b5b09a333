"""The text protocol ControlSocket/1.3 of Click, without sockets: bytes in, bytes out.

Commands, one a line (CR LF or LF): READ h [arg], READDATA h n + octets, READUNTIL h end + lines, WRITE
h [value], WRITEDATA h n + octets, WRITEUNTIL h end + lines, CHECKREAD h, CHECKWRITE h, HELP, QUIT.
Replies are `NNN text`, lines of a longer text `NNN-text`; a read that succeeds has a line `DATA n` and
n octets behind it. See Click's elements/userlevel/controlsocket.cc for the protocol.
"""

from __future__ import annotations

from xiatb.click.errors import HandlerError
from xiatb.click.graph import Router
from xiatb.errors import XiatbError

GREETING = b"Click::ControlSocket/1.3\r\n"
MAX_LINE = 65_536
MAX_DATA = 16 * 1024 * 1024

OK, SYNTAX, UNIMPLEMENTED, NO_ELEMENT, NO_HANDLER, FAILED, NO_ROUTER = 200, 500, 501, 510, 511, 520, 540
_COMMANDS = [
    "READ",
    "READDATA",
    "READUNTIL",
    "WRITE",
    "WRITEDATA",
    "WRITEUNTIL",
    "CHECKREAD",
    "CHECKWRITE",
    "HELP",
    "QUIT",
]


class ControlSession:
    """One connection. Send `greeting()` first, then what `feed` gives; close it when `closed` is true."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.closed = False
        self._buffer = bytearray()
        self._waiting: tuple[str, str, int] | None = None  # verb, handler, octets of data to come
        self._until: tuple[str, str, bytes] | None = None  # verb, handler, line that ends the data
        self._lines: list[bytes] = []
        self._gathered = 0

    def greeting(self) -> bytes:
        """What the server says first."""
        return GREETING

    def feed(self, data: bytes) -> bytes:
        """Take what the client sent; gives the replies, maybe none yet."""
        self._buffer += data
        replies: list[bytes] = []
        while not self.closed:
            reply = self._step()
            if reply is None:
                break
            replies.append(reply)
        return b"".join(replies)

    def _step(self) -> bytes | None:
        """Work off one command or one line of its data; None when more octets are needed."""
        if self._waiting is not None:
            verb, handler, count = self._waiting
            if len(self._buffer) < count:
                return None
            data = bytes(self._buffer[:count])
            del self._buffer[:count]
            self._waiting = None
            return self._act(verb, handler, data.decode("utf-8", "replace"))
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE:
                self.closed = True
                return _reply(SYNTAX, "Line too long")
            return None
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        if self._until is not None:
            return self._collect(line)
        return self._command(line.decode("utf-8", "replace"))

    def _collect(self, line: bytes) -> bytes:
        verb, handler, stop = self._until or ("", "", b"")
        if line != stop:
            self._lines.append(line)
            self._gathered += len(line) + 1
            if self._gathered > MAX_DATA:
                self.closed = True
                return _reply(SYNTAX, "Too much data")
            return b""
        text = b"".join(kept + b"\n" for kept in self._lines).decode("utf-8", "replace")
        self._until, self._lines, self._gathered = None, [], 0
        return self._act(verb, handler, text)

    def _command(self, line: str) -> bytes:
        words = line.strip().split(None, 2)
        if not words:
            return b""
        verb, rest = words[0].upper(), words[1:]
        if verb in ("QUIT", "CLOSE"):
            self.closed = True
            return _reply(OK, "Goodbye!")
        if verb == "HELP":
            return _lines(OK, ["Commands:", *_COMMANDS])
        if verb not in _COMMANDS:
            return _reply(UNIMPLEMENTED, f"Unimplemented command '{verb}'")
        if not rest:
            return _reply(SYNTAX, f"Wrong number of arguments to '{verb}'")
        handler, value = rest[0], rest[1] if len(rest) > 1 else ""
        if verb.endswith("DATA"):
            if not value.isdecimal() or int(value) > MAX_DATA:
                return _reply(
                    SYNTAX, f"Syntax error: expected '{verb} HANDLER COUNT', COUNT at most {MAX_DATA}"
                )
            self._waiting = (verb.removesuffix("DATA"), handler, int(value))
            return b""
        if verb.endswith("UNTIL"):
            self._until = (verb.removesuffix("UNTIL"), handler, value.encode())
            return b""
        return self._act(verb, handler, value)

    def _act(self, verb: str, handler: str, value: str) -> bytes:
        try:
            if verb == "READ":
                data = self.router.read(handler, value).encode()
                return _reply(OK, f"Read handler '{handler}' OK") + b"DATA %d\r\n" % len(data) + data
            if verb == "WRITE":
                self.router.write(handler, value)
                return _reply(OK, f"Write handler '{handler}' OK")
            write = verb == "CHECKWRITE"
            if self.router.has_handler(handler, write):
                return _reply(OK, f"{'Write' if write else 'Read'} handler '{handler}' OK")
            return _reply(NO_HANDLER, f"No {'write' if write else 'read'} handler '{handler}'")
        except HandlerError as error:
            return _lines(error.code, error.message.splitlines() or ["Failed"])
        except XiatbError as error:
            return _lines(FAILED, error.message.splitlines() or ["Failed"])


def _reply(code: int, text: str) -> bytes:
    return f"{code} {text}\r\n".encode()


def _lines(code: int, lines: list[str]) -> bytes:
    texts = [f"{code}-{line}\r\n" for line in lines[:-1]] + [f"{code} {lines[-1]}\r\n"]
    return "".join(texts).encode()
