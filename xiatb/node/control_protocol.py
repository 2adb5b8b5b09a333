"""The control protocol of a node process: JSON objects, one a line, over a UNIX stream socket.

Request `{"id": n, "op": "...", ...}`; answer `{"id": n, "ok": true, "result": {...}}` or
`{"id": n, "ok": false, "error": {"code": "EADDRINUSE", "message": "..."}}`; events, which come
without being asked for once, `{"event": "...", ...}`. `docs/node.md` lists the operations.

Both directions treat what they read as hostile: a line is bounded, and anything but a JSON object
is refused with an error, never an exception that escapes.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xiatb.errors import XiatbError

MAX_LINE = 1 << 20
"""Longest line either side sends or takes, bytes without the newline."""
BIND_PURPOSE = b"xiatb-bind\0"
"""Signed to bind a SID: this + the node's HID key (24 bytes) + the SID key (24 bytes)."""
EPHEMERAL_PREFIX = bytes.fromhex("30000ff0000000000000000000000000")
"""First 16 id bytes of SIDs without a key, for datagrams only (xia-core xtransport.cc:552)."""

Json = dict[str, Any]


class ControlError(XiatbError):
    """A request failed; `code` is the name of an errno value, e.g. EADDRINUSE."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code

    @property
    def errno(self) -> int:
        """The number of `code`; EPROTO when this system does not know the name."""
        return int(getattr(errno, self.code, errno.EPROTO))


class LineTooLongError(ControlError):
    """The peer sent more than MAX_LINE bytes without a newline; the connection is to be closed."""

    def __init__(self) -> None:
        super().__init__("EMSGSIZE", f"a line is longer than {MAX_LINE} bytes")


class LineDecoder:
    """Splits a byte stream into lines without their newline."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines completed by `data`. Raises LineTooLongError; the decoder is then of no more use."""
        self._buffer += data
        if b"\n" not in data:
            if len(self._buffer) > self._limit:
                raise LineTooLongError
            return []
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        if len(rest) > self._limit or any(len(line) > self._limit for line in lines):
            raise LineTooLongError
        return lines


def encode(message: Mapping[str, object]) -> bytes:
    """One line, newline included."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Json:
    """The object of one line. Raises ControlError EBADMSG for anything else."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("EBADMSG", f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ControlError("EBADMSG", "not a JSON object")
    return message


def ok(request_id: object, result: Mapping[str, object]) -> Json:
    """The answer to a request that succeeded."""
    return {"id": request_id, "ok": True, "result": result}


def explained(error: XiatbError) -> Json:
    """What an answer says of any error of xiatb: a code (EINVAL when it has none), message and hint."""
    code = error.code if isinstance(error, ControlError) else "EINVAL"
    told: Json = {"code": code, "message": error.message}
    if error.hint:
        told["hint"] = error.hint
    return told


Explain = Callable[[XiatbError], Json]
"""Makes the `error` of an answer."""


def failed(request_id: object, error: XiatbError, explain: Explain = explained) -> Json:
    """The answer to a request that failed."""
    return {"id": request_id, "ok": False, "error": explain(error)}


def field(request: Json, name: str, kinds: type | tuple[type, ...], default: Any = ...) -> Any:
    """A field of a request, checked for its type; `default` when it is absent, if one is given.

    Raises ControlError EINVAL. A bool is no number here.
    """
    value = request.get(name, default)
    if value is ...:
        raise ControlError("EINVAL", f"{name}: is missing")
    if value is default:
        return value
    wanted: Iterable[type] = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, tuple(wanted)) or (isinstance(value, bool) and bool not in wanted):
        raise ControlError("EINVAL", f"{name}: must be {' or '.join(kind.__name__ for kind in wanted)}")
    return value


def number(request: Json, name: str, default: float, low: float, high: float) -> float:
    """A number of a request between `low` and `high` (both included). Raises ControlError EINVAL."""
    value = float(field(request, name, (int, float), default))
    if not low <= value <= high:
        raise ControlError("EINVAL", f"{name}: {value:g} is not in {low:g}..{high:g}")
    return value
