"""Length-prefixed frames of the migration control protocol (layouts in docs/protocol-migration.md).

A frame is `u32 length | u8 version | u8 kind | body`, big endian, where `length` counts what follows it.
Kinds: CLEAR (handshake, JSON), SEALED (`u64 sequence | 32-byte HMAC-SHA256 | JSON`), CHANNEL (the first frame
on a bulk channel and its answer, JSON). After the answer to a CHANNEL frame the stream carries raw bytes.
"""

from __future__ import annotations

import hmac
import json
import struct
from typing import Any, Final

from xiatb.errors import WireError

VERSION: Final = 2
MAX_FRAME: Final = 65536
CLEAR: Final = 0
SEALED: Final = 1
CHANNEL: Final = 2
TAG_BYTES: Final = 32

_HEAD = struct.Struct(">IBB")
_SEQUENCE = struct.Struct(">Q")


def pack(kind: int, body: bytes) -> bytes:
    """One whole frame of `kind` around `body`; raises `WireError` when it would exceed MAX_FRAME."""
    if len(body) + 2 > MAX_FRAME:
        raise WireError(f"control frame of {len(body) + 2} bytes exceeds {MAX_FRAME}")
    return _HEAD.pack(len(body) + 2, VERSION, kind) + body


def pack_json(kind: int, value: dict[str, Any]) -> bytes:
    """One whole frame whose body is `value` as compact UTF-8 JSON."""
    return pack(kind, dump(value))


def dump(value: dict[str, Any]) -> bytes:
    """`value` as compact UTF-8 JSON with sorted keys."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def load(body: bytes | memoryview) -> dict[str, Any]:
    """The JSON object in `body`; raises `WireError` for anything else (bad UTF-8, NaN, deep nesting, a
    list)."""
    try:
        value = json.loads(bytes(body).decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"control frame is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise WireError("control frame is not a JSON object")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number here")


class FrameReader:
    """Cuts a byte stream into frames; never holds more than one frame and what one `feed` added."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the stream, in order."""
        self._buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """The next whole frame as (kind, body), or None while it is incomplete.

        Raises `WireError` at once on a bad length or version, before the body is there.
        """
        if len(self._buffer) < _HEAD.size:
            return None
        length, version, kind = _HEAD.unpack_from(self._buffer)
        if not 2 <= length <= MAX_FRAME:
            raise WireError(f"control frame length {length} is outside 2..{MAX_FRAME}")
        if version != VERSION:
            raise WireError(f"control protocol version {version}, this side speaks {VERSION}")
        if kind not in (CLEAR, SEALED, CHANNEL):
            raise WireError(f"unknown control frame kind {kind}")
        if len(self._buffer) < 4 + length:
            return None
        body = bytes(self._buffer[_HEAD.size : 4 + length])
        del self._buffer[: 4 + length]
        return kind, body

    def missing(self) -> int:
        """Bytes that the frame at hand still lacks; its head must be there and `next` have returned None."""
        return 4 + int(_HEAD.unpack_from(self._buffer)[0]) - len(self._buffer)


class Sealer:
    """Makes SEALED frames for one direction: HMAC-SHA256 over version, kind, sequence and body."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sequence = 0

    def seal(self, body: bytes) -> bytes:
        """The whole frame that carries `body` with the next sequence number."""
        sequence = _SEQUENCE.pack(self._sequence)
        self._sequence += 1
        return pack(SEALED, sequence + _tag(self._key, sequence, body) + body)


class Opener:
    """Checks SEALED frames of one direction: right key, and sequence exactly the next one."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sequence = 0

    def open(self, sealed: bytes) -> bytes:
        """The JSON body of a SEALED frame; raises `WireError` on forgery, replay, loss or reordering."""
        head = _SEQUENCE.size + TAG_BYTES
        if len(sealed) < head:
            raise WireError("sealed control frame is truncated")
        sequence, tag, body = sealed[: _SEQUENCE.size], sealed[_SEQUENCE.size : head], sealed[head:]
        if not hmac.compare_digest(tag, _tag(self._key, sequence, body)):
            raise WireError("control frame fails authentication")
        if _SEQUENCE.unpack(sequence)[0] != self._sequence:
            raise WireError("control frame out of sequence")
        self._sequence += 1
        return body


def _tag(key: bytes, sequence: bytes, body: bytes) -> bytes:
    return hmac.digest(key, bytes((VERSION, SEALED)) + sequence + body, "sha256")
