"""The agent's line protocol, both sides: bounded JSON lines over a byte pipe that may lose bytes.

A message is one JSON object in UTF-8 on one line. Requests: {"id": n, "op": name, ...}; answers
{"id": n, "ok": true, "result": {...}} or {"id": n, "ok": false, "error": {"code", "message"}};
events {"event": name, ...}. The pipe is a UART that a migration cuts, so each side starts a new
line before its first message, and whatever is no valid message is counted and dropped.
See docs/agent-protocol.md.
"""

from __future__ import annotations

import json
from typing import Any

Message = dict[str, Any]

MAX_REQUEST = 16 * 1024
MAX_MESSAGE = 128 * 1024
MAX_DEPTH_BYTES = 64
"""More opening brackets than this before a closing one are no message of ours (JSON recursion)."""


def encode(message: Message) -> bytes:
    """The line for `message`, newline included. Raises ValueError when it is longer than MAX_MESSAGE."""
    line = json.dumps(message, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"
    if len(line) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(line)} bytes does not fit {MAX_MESSAGE}")
    return line


def _too_deep(line: bytes) -> bool:
    return line.count(b"[") + line.count(b"{") > MAX_DEPTH_BYTES * 16 or b"[" * MAX_DEPTH_BYTES in line


class LineDecoder:
    """Cuts received bytes into messages; hostile input costs bounded memory and never raises.

    `limit` is the longest line in bytes. `malformed` counts lines that were no JSON object,
    `oversize` lines that were too long (their bytes are dropped up to the next newline).
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self.limit = limit
        self.malformed = 0
        self.oversize = 0
        self._buffer = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[Message]:
        """Takes received bytes, gives the messages that they complete, in order."""
        messages: list[Message] = []
        start = 0
        while True:
            end = data.find(b"\n", start)
            if end < 0:
                break
            self._complete(data[start:end], messages)
            start = end + 1
        self._keep(data[start:])
        return messages

    def _complete(self, tail: bytes, messages: list[Message]) -> None:
        self._keep(tail)
        line, self._buffer = bytes(self._buffer), bytearray()
        skipped, self._skipping = self._skipping, False
        if skipped or not line.strip():
            return
        message = decode_line(line)
        if message is None:
            self.malformed += 1
        else:
            messages.append(message)

    def _keep(self, piece: bytes) -> None:
        if self._skipping or not piece:
            return
        if len(self._buffer) + len(piece) > self.limit:
            self._buffer.clear()
            self._skipping = True
            self.oversize += 1
            return
        self._buffer += piece


def decode_line(line: bytes) -> Message | None:
    """The JSON object on `line`, or None when there is none."""
    if _too_deep(line):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def success(ident: object, result: Message) -> Message:
    """The answer to request `ident` that worked."""
    return {"id": ident, "ok": True, "result": result}


def failure(ident: object, code: str, text: str) -> Message:
    """The answer to request `ident` that failed; `code` is a short upper-case name."""
    return {"id": ident, "ok": False, "error": {"code": code, "message": text[:500]}}
