"""Cuts libvirt's RPC into messages, and holds the call that starts the guest on its way to the destination.

Only the fixed head of each message is read (libvirt's docs/kbase/internals/rpc): u32 length with itself, u32
program, version, procedure, type, serial, status, big endian, then XDR. The last u32 of a Finish call is its
argument `cancelled`. Bytes are never changed; a stream that does not look like this is passed on unwatched.
What the destination lets through is in `peercalls.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

_HEAD: Final = struct.Struct(">7I")
PROGRAM: Final = 0x20008086
CALL, REPLY = 0, 1
FINISH: Final = frozenset((217, 306))
"""domain_migrate_finish3 and ..._finish3_params in libvirt's remote_protocol.x."""
MAX_MESSAGE: Final = 32 << 20
"""Bytes of the longest message of libvirt 9.0 (VIR_NET_MESSAGE_MAX)."""


@dataclass(frozen=True)
class RpcMessage:
    """A message's head, and `tail`, its last u32 (0 for a body of less). `whole` is all of it, head included,
    if the watch keeps messages."""

    program: int
    version: int
    procedure: int
    type: int
    serial: int
    status: int
    tail: int
    whole: bytes = b""


class RpcWatch:
    """Cuts one direction into messages of at most `limit` bytes. Bodies are kept only for one that is to
    `keep` them. `broken` once the bytes make no sense."""

    def __init__(self, limit: int = MAX_MESSAGE, *, keep: bool = False) -> None:
        self.broken = False
        self._limit = limit
        self._keep = keep
        self._body = bytearray()
        self._head = bytearray()
        self._left = 0
        self._tail = b""

    def feed(self, data: bytes) -> list[RpcMessage]:
        """The messages that `data` completes."""
        found: list[RpcMessage] = []
        view = memoryview(data)
        while view and not self.broken:
            if self._left == 0 and len(self._head) < _HEAD.size:
                taken = min(len(view), _HEAD.size - len(self._head))
                self._head += view[:taken]
                view = view[taken:]
                if len(self._head) < _HEAD.size:
                    break
                self._begin()
            taken = min(len(view), self._left)
            if self._keep:
                self._body += view[:taken]
            self._tail = (self._tail + bytes(view[:taken][-4:]))[-4:]
            self._left -= taken
            view = view[taken:]
            if self._left == 0 and not self.broken:
                found.append(self._message())
        return found

    def _begin(self) -> None:
        length = int(_HEAD.unpack(self._head)[0])
        self.broken = not _HEAD.size <= length <= self._limit
        self._left = max(0, length - _HEAD.size)
        self._tail = b""

    def _message(self) -> RpcMessage:
        _, program, version, procedure, kind, serial, status = _HEAD.unpack(self._head)
        whole = bytes(self._head + self._body) if self._keep else b""
        self._head.clear()
        self._body.clear()
        tail = int.from_bytes(self._tail, "big") if len(self._tail) == 4 else 0
        return RpcMessage(program, version, procedure, kind, serial, status, tail, whole)


class FinishGate:
    """Sits in the source's RPC relay. `on_finish` is awaited before the last bytes of a Finish that starts
    the guest go out, and may raise to refuse it; `on_answer(ok)` is called after its reply has come in."""

    def __init__(self, on_finish: Callable[[], Awaitable[None]], on_answer: Callable[[bool], None]) -> None:
        self._on_finish = on_finish
        self._on_answer = on_answer
        self._calls = RpcWatch()
        self._replies = RpcWatch()
        self._waiting: set[int] = set()

    async def outgoing(self, data: bytes) -> None:
        """Before `data` is sent to the destination; raises what `on_finish` raises."""
        for message in self._calls.feed(data):
            finish = message.program == PROGRAM and message.procedure in FINISH and message.type == CALL
            if finish and message.tail == 0:
                await self._on_finish()
                self._waiting.add(message.serial)

    def incoming(self, data: bytes) -> None:
        """After `data` was handed to libvirt here."""
        for message in self._replies.feed(data):
            if message.type == REPLY and message.program == PROGRAM and message.serial in self._waiting:
                self._waiting.discard(message.serial)
                self._on_answer(message.status == 0)
