"""Bytes of the routing protocol's messages between neighbours (docs/protocol-routing.md).

They are link local: payloads of XDGRAM to SID_XROUTE, sent to the broadcast FID. Every message
begins `version u8 = 1, type u8, flags u16, sender HID id 20`, all numbers big endian. HELLO is
signed by the sender; the others are not: the advertisements that they carry are, and what a forged
ACK or DIGEST can suppress is repaired by the digests in the next HELLO.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.node.lsa import KEY_LEN, MAX_LEN, MIN_LEN, Lsa
from xiatb.node.membership import SIGNATURE_LEN

VERSION = 1
DOMAIN = b"xiatb-hello\0"
FLAG_BYE = 1
EVERYONE = bytes(20)
MAX_HEARD = 32
# Whole payload of a message: with four address nodes, FID header and XDGRAM 1476 bytes of XIP.
MAX_PAYLOAD = 1340
_HEAD = struct.Struct(">BBH20s")
_HELLO = struct.Struct(">BBH20s128sQQHHQQ")
_HEARD = struct.Struct(">20sQ")
_COUNT = struct.Struct(">H")
_ITEM = struct.Struct(">IH")
_DIGEST = struct.Struct(">41s41sH")
_DIGEST_ROW = struct.Struct(">41sQ")
DIGEST_ROWS = (MAX_PAYLOAD - _HEAD.size - 20 - _DIGEST.size) // _DIGEST_ROW.size
REQUEST_ROWS = (MAX_PAYLOAD - _HEAD.size - 20 - 2) // KEY_LEN
ACK_ROWS = 128


class RoutingType(IntEnum):
    """Message types."""

    HELLO = 1
    UPDATE = 2
    ACK = 3
    DIGEST = 4
    REQUEST = 5


class Hello(NamedTuple):
    """HELLO: `heard` maps the HID ids of routers heard on this link to their instances."""

    bye: bool
    sender: bytes
    credentials: bytes
    instance: int
    seq: int
    interval_ms: int
    digest_ad: int
    digest_global: int
    heard: dict[bytes, int]
    raw: bytes


class Update(NamedTuple):
    """UPDATE: advertisements with their ages in milliseconds."""

    sender: bytes
    items: list[tuple[int, Lsa]]


class Ack(NamedTuple):
    """ACK: `target`'s advertisements with these ids (first 8 bytes of their SHA-1) arrived."""

    sender: bytes
    target: bytes
    ids: list[bytes]


class Digest(NamedTuple):
    """DIGEST: all that the sender has with after < key <= upto, as (key, sequence number)."""

    sender: bytes
    target: bytes
    after: bytes
    upto: bytes
    rows: dict[bytes, int]


class Request(NamedTuple):
    """REQUEST: the sender wants these advertisements of `target`."""

    sender: bytes
    target: bytes
    keys: list[bytes]


Message = Hello | Update | Ack | Digest | Request


def pack_hello(
    key: KeyPair,
    *,
    sender: bytes,
    credentials: bytes,
    instance: int,
    seq: int,
    interval_ms: int,
    digest_ad: int,
    digest_global: int,
    heard: dict[bytes, int],
    bye: bool = False,
) -> bytes:
    """Return a signed HELLO; see `Hello`."""
    body = _HELLO.pack(
        VERSION,
        RoutingType.HELLO,
        FLAG_BYE if bye else 0,
        sender,
        credentials,
        instance,
        seq,
        interval_ms,
        len(heard),
        digest_ad,
        digest_global,
    ) + b"".join(_HEARD.pack(hid, number) for hid, number in heard.items())
    return body + key.sign(DOMAIN + body)


def hello_authentic(hello: Hello, public: bytes) -> bool:
    """Tell whether the key `public` (32 bytes) signed this HELLO."""
    return keys.verify(public, hello.raw[-SIGNATURE_LEN:], DOMAIN + hello.raw[:-SIGNATURE_LEN])


def _head(kind: RoutingType, sender: bytes) -> bytes:
    return _HEAD.pack(VERSION, kind, 0, sender)


def pack_updates(sender: bytes, items: Sequence[tuple[int, Lsa]]) -> list[bytes]:
    """Return as many UPDATE messages as (age in ms, advertisement) pairs need."""
    out: list[bytes] = []
    parts: list[bytes] = []
    room = 0
    for age, lsa in items:
        size = _ITEM.size + len(lsa.raw)
        if parts and size > room:
            out.append(_head(RoutingType.UPDATE, sender) + _COUNT.pack(len(parts)) + b"".join(parts))
            parts = []
        if not parts:
            room = MAX_PAYLOAD - _HEAD.size - _COUNT.size
        parts.append(_ITEM.pack(min(age, 0xFFFFFFFF), len(lsa.raw)) + lsa.raw)
        room -= size
    if parts:
        out.append(_head(RoutingType.UPDATE, sender) + _COUNT.pack(len(parts)) + b"".join(parts))
    return out


def pack_ack(sender: bytes, target: bytes, ids: Sequence[bytes]) -> bytes:
    """Return an ACK of at most ACK_ROWS ids of 8 bytes."""
    return _head(RoutingType.ACK, sender) + target + _COUNT.pack(len(ids)) + b"".join(ids)


def pack_request(sender: bytes, target: bytes, wanted: Sequence[bytes]) -> bytes:
    """Return a REQUEST of at most REQUEST_ROWS keys of 41 bytes."""
    return _head(RoutingType.REQUEST, sender) + target + _COUNT.pack(len(wanted)) + b"".join(wanted)


def pack_digests(
    sender: bytes, target: bytes, rows: Sequence[tuple[bytes, int]], after: bytes, upto: bytes
) -> list[bytes]:
    """Return DIGEST messages that list `rows`, sorted by key, which is all there is in (after, upto]."""
    out = []
    for start in range(0, max(1, len(rows)), DIGEST_ROWS):
        page = rows[start : start + DIGEST_ROWS]
        end = upto if start + DIGEST_ROWS >= len(rows) else page[-1][0]
        head = _head(RoutingType.DIGEST, sender) + target + _DIGEST.pack(after, end, len(page))
        out.append(head + b"".join(_DIGEST_ROW.pack(*row) for row in page))
        after = end
    return out


def _parse_hello(buf: bytes, sender: bytes, flags: int) -> Hello:
    if len(buf) < _HELLO.size + SIGNATURE_LEN:
        raise WireError(f"a HELLO of {len(buf)} bytes")
    fields = _HELLO.unpack_from(buf)
    _, _, _, _, credentials, instance, seq, interval, count, digest_ad, digest_global = fields
    if count > MAX_HEARD or len(buf) != _HELLO.size + count * _HEARD.size + SIGNATURE_LEN:
        raise WireError(f"a HELLO of {len(buf)} bytes that names {count} neighbours")
    if interval < 20:
        raise WireError(f"a HELLO interval of {interval} ms")
    rows = _HEARD.iter_unpack(buf[_HELLO.size : -SIGNATURE_LEN])
    heard: dict[bytes, int] = dict(rows)
    bye = bool(flags & FLAG_BYE)
    return Hello(bye, sender, credentials, instance, seq, interval, digest_ad, digest_global, heard, buf)


def _parse_update(buf: bytes, sender: bytes, flags: int) -> Update:
    at = _HEAD.size + _COUNT.size
    if len(buf) < at:
        raise WireError("a truncated UPDATE")
    items = []
    for _ in range(_COUNT.unpack_from(buf, _HEAD.size)[0]):
        if len(buf) < at + _ITEM.size:
            raise WireError("a truncated UPDATE")
        age, length = _ITEM.unpack_from(buf, at)
        at += _ITEM.size
        if not MIN_LEN <= length <= MAX_LEN or len(buf) < at + length:
            raise WireError(f"an UPDATE with an LSA of {length} bytes")
        items.append((age, Lsa(buf[at : at + length])))
        at += length
    if at != len(buf):
        raise WireError("an UPDATE with more bytes than it says")
    return Update(sender, items)


def _rows(buf: bytes, at: int, count: int, size: int, limit: int) -> bytes:
    """Return the `count` rows of `size` bytes that must be all there is from `at` on."""
    if count > limit or len(buf) - at != count * size:
        raise WireError(f"a routing message of {len(buf)} bytes that counts {count} rows")
    return buf[at:]


def _target(buf: bytes, more: int) -> bytes:
    if len(buf) < _HEAD.size + 20 + more:
        raise WireError(f"a routing message of {len(buf)} bytes")
    return buf[_HEAD.size : _HEAD.size + 20]


def _parse_ack(buf: bytes, sender: bytes, flags: int) -> Ack:
    target = _target(buf, _COUNT.size)
    rows = _rows(buf, _HEAD.size + 22, _COUNT.unpack_from(buf, _HEAD.size + 20)[0], 8, ACK_ROWS)
    return Ack(sender, target, [rows[i : i + 8] for i in range(0, len(rows), 8)])


def _parse_request(buf: bytes, sender: bytes, flags: int) -> Request:
    target = _target(buf, _COUNT.size)
    count = _COUNT.unpack_from(buf, _HEAD.size + 20)[0]
    rows = _rows(buf, _HEAD.size + 22, count, KEY_LEN, REQUEST_ROWS)
    return Request(sender, target, [rows[i : i + KEY_LEN] for i in range(0, len(rows), KEY_LEN)])


def _parse_digest(buf: bytes, sender: bytes, flags: int) -> Digest:
    target = _target(buf, _DIGEST.size)
    after, upto, count = _DIGEST.unpack_from(buf, _HEAD.size + 20)
    rows = _rows(buf, _HEAD.size + 20 + _DIGEST.size, count, _DIGEST_ROW.size, DIGEST_ROWS)
    listed: dict[bytes, int] = dict(_DIGEST_ROW.iter_unpack(rows))
    if any(not after < key <= upto for key in listed):
        raise WireError("a DIGEST lists a key outside of its range")
    return Digest(sender, target, after, upto, listed)


_PARSERS: dict[int, Callable[[bytes, bytes, int], Message]] = {
    int(RoutingType.HELLO): _parse_hello,
    int(RoutingType.UPDATE): _parse_update,
    int(RoutingType.ACK): _parse_ack,
    int(RoutingType.DIGEST): _parse_digest,
    int(RoutingType.REQUEST): _parse_request,
}


def parse(payload: bytes | bytearray | memoryview) -> Message:
    """Return the routing message in `payload` (of an XDGRAM); WireError when it is none."""
    buf = bytes(payload)
    if len(buf) < _HEAD.size:
        raise WireError(f"a routing message of {len(buf)} bytes")
    version, kind, flags, sender = _HEAD.unpack_from(buf)
    if version != VERSION:
        raise WireError(f"routing protocol version {version}, not {VERSION}")
    parser = _PARSERS.get(kind)
    if parser is None:
        raise WireError(f"unknown routing message type {kind}")
    return parser(buf, sender, flags)
