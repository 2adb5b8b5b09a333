"""MIGRATE and MIGRATEACK: the signed, sequenced move of one end of a session.

They replace xia-core's RSA bodies. All integers big-endian:

    MIGRATE     version u8=2, flags u8, ndag u8, reserved u8, seq u64, key 32, signature 64, ndag*28 nodes
    MIGRATEACK  version u8=2, flags u8, reserved u16,         seq u64, key 32, signature 64

They travel as XSTREAM options 50 and 51 (behind kind and length two zero bytes, then the body) or
as extension headers with those numbers (nxt u8, off u8, pad u16, body), so a body starts at a
word either way. `key` is the sender's raw Ed25519 key, whose hash must be the SID it moves.
This module only lays out bytes; what `signed_bytes` returns is signed and checked with
`xiatb.identity.keys`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.wire.dag import DAG, MAX_NODES, NODE_LEN
from xiatb.wire.xid import XID
from xiatb.wire.xip import NXT_MIGRATE, NXT_MIGRATEACK, Buffer, dag_of

VERSION = 2
KEY_BYTES = 32
SIGNATURE_BYTES = 64
FIXED_LEN = 108

_HEAD = struct.Struct(">BBBBQ32s")
_MIGRATE_PURPOSE = b"xiatb-migrate\0"
_ACK_PURPOSE = b"xiatb-migrateack\0"
_MAX_SEQ = 2**64 - 1


class Migrate(NamedTuple):
    """ "I, the owner of `public`, am at `dag` from now on"; a higher `seq` is newer."""

    seq: int
    dag: DAG
    public: bytes
    signature: bytes = bytes(SIGNATURE_BYTES)
    flags: int = 0

    def signed_bytes(self, mover: XID, peer: XID) -> bytes:
        """Return what the signature covers for the session of the SIDs `mover` and `peer`.

        Purpose, both 24-byte SID keys, and the body without its signature.
        """
        return _MIGRATE_PURPOSE + mover.key + peer.key + self._head() + self.dag.to_wire()

    def signed(self, signature: bytes) -> Migrate:
        """Return the same with its 64-byte signature."""
        return self._replace(signature=signature)

    def _head(self) -> bytes:
        if not 0 <= self.seq <= _MAX_SEQ or not 0 <= self.flags <= 255:
            raise WireError(f"MIGRATE sequence {self.seq} or flags {self.flags} do not fit")
        return _HEAD.pack(VERSION, self.flags, len(self.dag), 0, self.seq, _sized(self.public, KEY_BYTES))

    def pack(self) -> bytes:
        """Return the body."""
        return self._head() + _sized(self.signature, SIGNATURE_BYTES) + self.dag.to_wire()


class MigrateAck(NamedTuple):
    """ "I, the owner of `public`, have taken your move number `seq`"."""

    seq: int
    public: bytes
    signature: bytes = bytes(SIGNATURE_BYTES)
    flags: int = 0

    def signed_bytes(self, acker: XID, mover: XID) -> bytes:
        """Return what the signature covers: purpose, both 24-byte SID keys, seq as u64."""
        if not 0 <= self.seq <= _MAX_SEQ:
            raise WireError(f"MIGRATEACK sequence {self.seq} does not fit")
        return _ACK_PURPOSE + acker.key + mover.key + self.seq.to_bytes(8, "big")

    def signed(self, signature: bytes) -> MigrateAck:
        """Return the same with its 64-byte signature."""
        return self._replace(signature=signature)

    def pack(self) -> bytes:
        """Return the body."""
        if not 0 <= self.seq <= _MAX_SEQ or not 0 <= self.flags <= 255:
            raise WireError(f"MIGRATEACK sequence {self.seq} or flags {self.flags} do not fit")
        head = _HEAD.pack(VERSION, self.flags, 0, 0, self.seq, _sized(self.public, KEY_BYTES))
        return head + _sized(self.signature, SIGNATURE_BYTES)


def _sized(value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise WireError(f"a key has 32 bytes and a signature 64, not {len(value)}")
    return bytes(value)


def _fields(raw: bytes, what: str) -> tuple[int, int, int, bytes, bytes]:
    """Return (flags, third byte, seq, key, signature) of a body's fixed part."""
    if len(raw) < FIXED_LEN:
        raise WireError(f"{what} body of {len(raw)} bytes, at least {FIXED_LEN} needed")
    version, flags, third, reserved, seq, public = _HEAD.unpack_from(raw)
    if version != VERSION:
        raise WireError(f"{what} version {version}, not {VERSION}")
    if reserved:
        raise WireError(f"{what} reserved byte is {reserved}, not 0")
    return flags, third, seq, public, raw[_HEAD.size : FIXED_LEN]


def parse_migrate(body: Buffer) -> Migrate:
    """Return the MIGRATE of a body of exactly its length; nothing is verified. Raises WireError."""
    raw = bytes(body)
    flags, count, seq, public, signature = _fields(raw, "MIGRATE")
    if not 0 < count <= MAX_NODES or len(raw) != FIXED_LEN + count * NODE_LEN:
        raise WireError(f"MIGRATE body of {len(raw)} bytes does not hold {count} nodes")
    nodes = raw[FIXED_LEN:]
    dag = dag_of(nodes)
    if dag.to_wire() != nodes:
        # What is signed is the bytes; a form that we would write differently could not be checked.
        raise WireError("MIGRATE address has visited bits or is not in topological order")
    return Migrate(seq, dag, public, signature, flags)


def parse_ack(body: Buffer) -> MigrateAck:
    """Return the MIGRATEACK of a body of exactly its length; nothing is verified. Raises WireError."""
    raw = bytes(body)
    flags, third, seq, public, signature = _fields(raw, "MIGRATEACK")
    if third or len(raw) != FIXED_LEN:
        raise WireError(f"MIGRATEACK body of {len(raw)} bytes with reserved byte {third}")
    return MigrateAck(seq, public, signature, flags)


def option_value(message: Migrate | MigrateAck) -> bytes:
    """Return the value for `xstream.Options.migrate` or `.migrate_ack`: two zero bytes, the body."""
    return b"\0\0" + message.pack()


def _option_body(value: Buffer) -> bytes:
    raw = bytes(value)
    if raw[:2] != b"\0\0":
        raise WireError("MIGRATE option is not of version 2 (xia-core's RSA form?)")
    return raw[2:]


def parse_migrate_option(value: Buffer) -> Migrate:
    """Return the MIGRATE of an XSTREAM option's value. Raises WireError."""
    return parse_migrate(_option_body(value))


def parse_ack_option(value: Buffer) -> MigrateAck:
    """Return the MIGRATEACK of an XSTREAM option's value. Raises WireError."""
    return parse_ack(_option_body(value))


def number_of(message: Migrate | MigrateAck) -> int:
    """Return the header and option number of a message, 50 or 51."""
    return NXT_MIGRATE if isinstance(message, Migrate) else NXT_MIGRATEACK


def pack_header(message: Migrate | MigrateAck, nxt: int) -> bytes:
    """Return the extension header that carries a message in front of header `nxt`."""
    body = message.pack()
    return bytes((nxt, (4 + len(body)) // 4, 0, 0)) + body


def parse_header(kind: int, buf: Buffer, start: int, end: int) -> Migrate | MigrateAck:
    """Return the message of an extension header of number `kind` at start..end (see `extension.chain`).

    Raises WireError, also when `kind` is neither 50 nor 51.
    """
    if end - start < 4 or end > len(buf) or buf[start + 2] or buf[start + 3]:
        raise WireError("MIGRATE extension header is cut or has padding that is not zero")
    if kind == NXT_MIGRATE:
        return parse_migrate(buf[start + 4 : end])
    if kind == NXT_MIGRATEACK:
        return parse_ack(buf[start + 4 : end])
    raise WireError(f"extension header {kind} carries no MIGRATE")
