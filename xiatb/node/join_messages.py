"""Bytes of the join protocol (Ethernet type 0x9991); docs/protocol-join.md has the layouts.

Every message begins `version u8 = 1, type u8, flags u16`; all numbers are big endian. All but
SOLICIT end in an Ed25519 signature over `domain + everything before the signature`. Parsers
check lengths and values and raise nothing but WireError; they do not verify signatures.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.node.membership import SIGNATURE_LEN

VERSION = 1
NOBODY = bytes(20)
NO_IP = bytes(4)
_ETHERNET_MINIMUM = 46  # shorter payloads come padded to this on real Ethernet


class JoinType(IntEnum):
    """Message types; INVITE is a BEACON aimed at one HID."""

    BEACON = 1
    SOLICIT = 2
    JOIN = 3
    ACCEPT = 4
    LEAVE = 5
    INVITE = 6


class Caps(IntFlag):
    """Flags of BEACON and INVITE."""

    ACCEPTS_HOSTS = 1
    HYPERVISOR = 2


class Code(IntEnum):
    """Verdict in an ACCEPT."""

    ACCEPTED = 0
    STALE_SEQUENCE = 1  # `last_seq` tells what the router has seen
    FULL = 2


FLAG_REFRESH = 1  # JOIN: keep-alive of an attachment that stands
FLAG_FROM_ROUTER = 1  # LEAVE: sent by the router

_HEAD = struct.Struct(">BBH")
_BEACON = struct.Struct(">BBH128sQ8sHH20s")
_SOLICIT = struct.Struct(">BBH20s")
_JOIN = struct.Struct(">BBH32s20s20s8sQ6s2x")
_ACCEPT = struct.Struct(">BBH128s20sQQHHIH2x4s")
_LEAVE = struct.Struct(">BBH32s20sQQ")

_DOMAINS: dict[int, bytes] = {
    JoinType.BEACON: b"xiatb-beacon\0",
    JoinType.INVITE: b"xiatb-invite\0",
    JoinType.JOIN: b"xiatb-join\0",
    JoinType.ACCEPT: b"xiatb-accept\0",
    JoinType.LEAVE: b"xiatb-leave\0",
}

JOIN_LEN = _JOIN.size + SIGNATURE_LEN


class Beacon(NamedTuple):
    """BEACON or INVITE: a router offers attachment.

    `credentials` 128 bytes (membership.py); `instance` is new at each start of the router;
    `nonce` (8 bytes) must come back in a JOIN; `target` is the 20-byte id of the HID that an
    INVITE is for, zeros in a BEACON; `raw` is the whole message.
    """

    kind: int
    caps: int
    credentials: bytes
    instance: int
    nonce: bytes
    interval_ms: int
    mtu: int
    target: bytes
    raw: bytes


class Solicit(NamedTuple):
    """SOLICIT: the host with the 20-byte HID id `host` asks for a beacon."""

    host: bytes


class Join(NamedTuple):
    """JOIN: host key `public` (32) attaches to router `router` (HID id) of `ad` (AD id)."""

    flags: int
    public: bytes
    router: bytes
    ad: bytes
    nonce: bytes
    seq: int
    mac: bytes
    raw: bytes


class Accept(NamedTuple):
    """ACCEPT: the router's verdict on the JOIN of `host` (HID id) with sequence number `seq`.

    `gateway_ip` is the IPv4 address (4 bytes) by which the AD is reached over IP, zeros when it has none.
    """

    credentials: bytes
    host: bytes
    seq: int
    last_seq: int
    code: int
    refresh_ms: int
    lifetime_ms: int
    mtu: int
    gateway_ip: bytes
    raw: bytes


class Leave(NamedTuple):
    """LEAVE: the signer `public` ends its attachment with `peer` (HID id; zeros: with all).

    `instance` is the router's when it is the signer, else 0; `seq` is above that of the host's
    last JOIN when the host signs, and that of the JOIN which is ended when the router does.
    """

    from_router: bool
    public: bytes
    peer: bytes
    instance: int
    seq: int
    raw: bytes


Message = Beacon | Solicit | Join | Accept | Leave


def _signed(key: KeyPair, kind: JoinType, body: bytes) -> bytes:
    return body + key.sign(_DOMAINS[kind] + body)


def authentic(message: Beacon | Join | Accept | Leave, public: bytes) -> bool:
    """Tell whether `message` carries a signature of the key `public` (32 bytes) over its own bytes."""
    raw = message.raw
    body = raw[:-SIGNATURE_LEN]
    return keys.verify(public, raw[-SIGNATURE_LEN:], _DOMAINS[raw[1]] + body)


def pack_beacon(
    key: KeyPair,
    *,
    credentials: bytes,
    instance: int,
    nonce: bytes,
    interval_ms: int,
    mtu: int,
    caps: int = Caps.ACCEPTS_HOSTS,
    target: bytes = NOBODY,
) -> bytes:
    """Return a signed BEACON, or a signed INVITE when `target` is the 20-byte id of a HID."""
    kind = JoinType.BEACON if target == NOBODY else JoinType.INVITE
    mtu = min(mtu, 0xFFFF)
    body = _BEACON.pack(VERSION, kind, caps, credentials, instance, nonce, interval_ms, mtu, target)
    return _signed(key, kind, body)


def pack_solicit(host: bytes) -> bytes:
    """Return a SOLICIT of the host with the 20-byte HID id `host`."""
    return _SOLICIT.pack(VERSION, JoinType.SOLICIT, 0, host)


def pack_join(
    key: KeyPair, *, router: bytes, ad: bytes, nonce: bytes, seq: int, mac: bytes, flags: int = 0
) -> bytes:
    """Return a JOIN signed by the host's HID key; `router` and `ad` are 20-byte ids."""
    body = _JOIN.pack(VERSION, JoinType.JOIN, flags, key.public, router, ad, nonce, seq, mac)
    return _signed(key, JoinType.JOIN, body)


def pack_accept(
    key: KeyPair,
    *,
    credentials: bytes,
    host: bytes,
    seq: int,
    code: int = Code.ACCEPTED,
    last_seq: int = 0,
    refresh_ms: int,
    lifetime_ms: int,
    mtu: int,
    gateway_ip: bytes = NO_IP,
) -> bytes:
    """Return an ACCEPT signed by the router's HID key, for the JOIN `seq` of `host` (20-byte HID id)."""
    body = _ACCEPT.pack(
        VERSION,
        JoinType.ACCEPT,
        0,
        credentials,
        host,
        seq,
        last_seq,
        code,
        refresh_ms,
        lifetime_ms,
        min(mtu, 0xFFFF),
        gateway_ip,
    )
    return _signed(key, JoinType.ACCEPT, body)


def pack_leave(
    key: KeyPair, *, from_router: bool, peer: bytes = NOBODY, instance: int = 0, seq: int = 0
) -> bytes:
    """Return a LEAVE signed by `key`; see `Leave` for the fields."""
    flags = FLAG_FROM_ROUTER if from_router else 0
    body = _LEAVE.pack(VERSION, JoinType.LEAVE, flags, key.public, peer, instance, seq)
    return _signed(key, JoinType.LEAVE, body)


def _exactly(buf: bytes, size: int, name: str) -> bytes:
    """Return the `size` bytes of a message, without the padding that short Ethernet frames get."""
    if len(buf) == size or size < len(buf) <= _ETHERNET_MINIMUM:
        return buf[:size]
    raise WireError(f"{name} has {size} bytes, not {len(buf)}")


def _parse_beacon(buf: bytes) -> Beacon:
    raw = _exactly(buf, _BEACON.size + SIGNATURE_LEN, "BEACON")
    _, kind, caps, credentials, instance, nonce, interval, mtu, target = _BEACON.unpack_from(raw)
    if (target == NOBODY) != (kind == JoinType.BEACON):
        raise WireError("a BEACON is for nobody and an INVITE for one HID")
    if interval < 20:
        raise WireError(f"beacon interval of {interval} ms")
    return Beacon(kind, caps, credentials, instance, nonce, interval, mtu, target, raw)


def _parse_solicit(buf: bytes) -> Solicit:
    return Solicit(_SOLICIT.unpack_from(_exactly(buf, _SOLICIT.size, "SOLICIT"))[3])


def _parse_join(buf: bytes) -> Join:
    raw = _exactly(buf, JOIN_LEN, "JOIN")
    _, _, flags, public, router, ad, nonce, seq, mac = _JOIN.unpack_from(raw)
    if mac[0] & 1:
        raise WireError("a JOIN from a group MAC address")
    return Join(flags, public, router, ad, nonce, seq, mac, raw)


def _parse_accept(buf: bytes) -> Accept:
    raw = _exactly(buf, _ACCEPT.size + SIGNATURE_LEN, "ACCEPT")
    _, _, _, credentials, host, seq, last_seq, code, refresh, lifetime, mtu, ip = _ACCEPT.unpack_from(raw)
    if code == Code.ACCEPTED and (refresh < 100 or lifetime < refresh):
        raise WireError(f"an ACCEPT for {lifetime} ms to be refreshed every {refresh} ms")
    return Accept(credentials, host, seq, last_seq, code, refresh, lifetime, mtu, ip, raw)


def _parse_leave(buf: bytes) -> Leave:
    raw = _exactly(buf, _LEAVE.size + SIGNATURE_LEN, "LEAVE")
    _, _, flags, public, peer, instance, seq = _LEAVE.unpack_from(raw)
    return Leave(bool(flags & FLAG_FROM_ROUTER), public, peer, instance, seq, raw)


_PARSERS = {
    JoinType.BEACON: _parse_beacon,
    JoinType.INVITE: _parse_beacon,
    JoinType.SOLICIT: _parse_solicit,
    JoinType.JOIN: _parse_join,
    JoinType.ACCEPT: _parse_accept,
    JoinType.LEAVE: _parse_leave,
}


def parse(payload: bytes | bytearray | memoryview) -> Message:
    """Return the message in the payload of a 0x9991 frame (no Ethernet header); else WireError."""
    buf = bytes(payload)
    if len(buf) < _HEAD.size:
        raise WireError(f"a join message of {len(buf)} bytes")
    if buf[0] != VERSION:
        raise WireError(f"join protocol version {buf[0]}, not {VERSION}")
    parser = _PARSERS.get(buf[1])  # type: ignore[call-overload]
    if parser is None:
        raise WireError(f"unknown join message type {buf[1]}")
    message: Message = parser(buf)
    return message


def parse_record(record: bytes) -> Join:
    """Return the JOIN in an attachment record (the JOIN's whole bytes); WireError for anything else."""
    if len(record) != JOIN_LEN or record[0] != VERSION or record[1] != JoinType.JOIN:
        raise WireError("an attachment record is one JOIN")
    return _parse_join(bytes(record))
