"""Messages of the name service: xia-core's strings, and a signed trailer behind them.

A message is the payload of an XDGRAM to or from `AD HID SID_NS` (xia-core daemons/nameserver/ns.cc, xia.md
3.9):

    type u8, flags u8, strings that each end in NUL [, trailer when flags has SIGNED (0x80)]

REGISTER has two strings (name, DAG), RESP_REGISTER none, all others one. DAGs are in DAG form, with newlines.
Without SIGNED a QUERY is xia-core's, byte for byte, and so is its answer. Trailers, integers big endian:

    QUERY, RQUERY          nonce 8
    REGISTER, all answers  nonce 8, seq u64, ttl u32 (seconds), key 32 (raw Ed25519), signature 64

The signature is over `b"xiatb-name\\0"` and everything before it. A REGISTER is signed by the key whose hash
is the address's final intent (HID or SID), an answer by the name server's HID key; `nonce` ties it to its
question. This module only lays out bytes; signatures are made and checked with `xiatb.identity.keys`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.wire.dag import DAG
from xiatb.wire.xip import Buffer

MAX_MESSAGE = 1024
"""Longest message, bytes, as in xia-core."""
MAX_NAME = 255
SIGNED = 0x80
NONCE_LEN = 8
_PURPOSE = b"xiatb-name\0"
_TRAILER = struct.Struct(">8sQI32s64s")
_SIGNATURE_LEN = 64
_MAX_SEQ = 2**64 - 1


class Kind(IntEnum):
    """Message types of xia-core (xns.h)."""

    REGISTER = 1
    QUERY = 2
    RQUERY = 3
    RESP_REGISTER = 4
    RESP_QUERY = 5
    RESP_RQUERY = 6
    ERROR = 7


STRINGS = {Kind.REGISTER: 2, Kind.RESP_REGISTER: 0}
"""How many strings a type has; one when it is not here."""
_QUESTIONS = (Kind.QUERY, Kind.RQUERY)


class NameMessage(NamedTuple):
    """One message. `nonce` is empty in a message without a trailer (xia-core's form).

    seq: of the registration, or of the record that an answer is about; ttl: how long it holds, seconds;
    raw: all bytes of a message that was parsed.
    """

    kind: Kind
    strings: tuple[str, ...]
    nonce: bytes = b""
    seq: int = 0
    ttl: int = 0
    public: bytes = bytes(32)
    signature: bytes = bytes(64)
    raw: bytes = b""

    def pack(self) -> bytes:
        """Return the bytes. Raises WireError when strings or numbers do not fit."""
        if len(self.strings) != STRINGS.get(self.kind, 1):
            raise WireError(f"{self.kind.name} with {len(self.strings)} strings")
        flags = SIGNED if self.nonce else 0
        body = bytes((self.kind, flags)) + b"".join(_text(text) for text in self.strings)
        if self.nonce:
            body += self._trailer()
        if len(body) > MAX_MESSAGE:
            raise WireError(f"a name service message of {len(body)} bytes, at most {MAX_MESSAGE} fit")
        return body

    def _trailer(self) -> bytes:
        if len(self.nonce) != NONCE_LEN:
            raise WireError(f"a nonce has {NONCE_LEN} bytes")
        if self.kind in _QUESTIONS:
            return self.nonce
        if not 0 <= self.seq <= _MAX_SEQ or not 0 <= self.ttl <= 0xFFFFFFFF:
            raise WireError(f"sequence {self.seq} or TTL {self.ttl} does not fit")
        return _TRAILER.pack(self.nonce, self.seq, self.ttl, self.public, self.signature)

    def signed_bytes(self) -> bytes:
        """Return what the signature covers. Raises WireError as `pack` does."""
        return _PURPOSE + (self.raw or self.pack())[:-_SIGNATURE_LEN]

    def signed(self, signature: bytes) -> NameMessage:
        """Return the same with its 64-byte signature."""
        return self._replace(signature=signature, raw=b"")

    def dag(self) -> DAG:
        """Return the address that the last string is. Raises WireError when it is none."""
        return DAG.parse(self.strings[-1])


def _text(text: str) -> bytes:
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise WireError("strings of the name service are ASCII") from error
    if b"\0" in raw:
        raise WireError("strings of the name service hold no NUL")
    return raw + b"\0"


def parse(payload: Buffer) -> NameMessage:
    """Return the message in an XDGRAM's payload; nothing is verified. Raises WireError."""
    raw = bytes(payload)
    if not 2 <= len(raw) <= MAX_MESSAGE:
        raise WireError(f"a name service message of {len(raw)} bytes")
    try:
        kind = Kind(raw[0])
    except ValueError:
        raise WireError(f"name service message type {raw[0]}") from None
    strings, at = [], 2
    for _ in range(STRINGS.get(kind, 1)):
        end = raw.find(b"\0", at)
        if end < 0:
            raise WireError(f"{kind.name} has a string without an end")
        if not raw[at:end].isascii():
            raise WireError(f"{kind.name} has a string that is not ASCII")
        strings.append(raw[at:end].decode("ascii"))
        at = end + 1
    if kind in (Kind.REGISTER, Kind.QUERY) and not 0 < len(strings[0]) <= MAX_NAME:
        raise WireError(f"a name of {len(strings[0])} characters, not 1 to {MAX_NAME}")
    bare = NameMessage(kind, tuple(strings), raw=raw)
    if not raw[1] & SIGNED:
        return bare
    rest = raw[at:]
    if len(rest) != (NONCE_LEN if kind in _QUESTIONS else _TRAILER.size):
        raise WireError(f"{kind.name} with a trailer of {len(rest)} bytes")
    if kind in _QUESTIONS:
        return bare._replace(nonce=rest)
    nonce, seq, ttl, public, signature = _TRAILER.unpack(rest)
    return bare._replace(nonce=nonce, seq=seq, ttl=ttl, public=public, signature=signature)
