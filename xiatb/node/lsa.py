"""Link-state advertisements: what one router says, signed, about itself.

Layout (big endian), as in docs/protocol-routing.md:
`version u8 = 1, type u8, flags u8, 0 u8, lifetime u16 s, body length u16, sequence u64,
origin HID id 20, object 20, credentials 128, body, Ed25519 signature 64` over
`b"xiatb-lsa\\0"` + all before it. (type, origin, object) is the key of an advertisement: a later
sequence number replaces an earlier one. LINKS and ADLINKS have the number of the fragment as
object, ATTACH the id of the host's HID.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from xiatb.errors import IdentityError, WireError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.node import join_messages as jm
from xiatb.node.membership import CREDENTIALS_LEN, SIGNATURE_LEN, MembershipCache
from xiatb.wire.xid import XID, XidType

VERSION = 1
KEY_LEN = 41
DOMAIN = b"xiatb-lsa\0"
FLAG_WITHDRAWN = 1
LINKS_PER_LSA = 40
ADLINKS_PER_LSA = 20
MAX_FRAGMENTS = 32
_HEAD = struct.Struct(">BBBBHHQ20s20s128s")
_LINK = struct.Struct(">20sH")
_ADLINK = struct.Struct(">20s20sH")
MIN_LEN = _HEAD.size + SIGNATURE_LEN
MAX_LEN = MIN_LEN + max(_LINK.size * LINKS_PER_LSA, _ADLINK.size * ADLINKS_PER_LSA)
_RECORD_CACHE = 8192


class LsaType(IntEnum):
    """LINKS and ATTACH stay inside an AD, ADLINKS goes everywhere (the order of keys relies on it)."""

    LINKS = 1
    ATTACH = 2
    ADLINKS = 3


GLOBAL_FROM = bytes([LsaType.ADLINKS]) + bytes(40)  # keys from here on are not confined to an AD


class Link(NamedTuple):
    """A neighbour router in the same AD (20-byte HID id) and the cost to it (>= 1)."""

    hid: bytes
    cost: int


class AdLink(NamedTuple):
    """A neighbour router in another AD: the AD's id, the router's HID id, the cost."""

    ad: bytes
    hid: bytes
    cost: int


class Lsa:
    """One advertisement as parsed or made; `key` is type + origin + object (41 bytes)."""

    __slots__ = (
        "type",
        "flags",
        "lifetime",
        "seq",
        "origin",
        "object",
        "credentials",
        "body",
        "raw",
        "key",
        "ack",
    )

    def __init__(self, raw: bytes) -> None:
        """Parse; `raw` has exactly one advertisement. WireError when it is none."""
        if len(raw) < MIN_LEN:
            raise WireError(f"an LSA of {len(raw)} bytes")
        version, kind, flags, _, lifetime, length, seq, origin, obj, credentials = _HEAD.unpack_from(raw)
        if version != VERSION:
            raise WireError(f"LSA version {version}")
        if length != len(raw) - MIN_LEN or len(raw) > MAX_LEN:
            raise WireError(f"an LSA of {len(raw)} bytes says that its body has {length}")
        if kind not in (LsaType.LINKS, LsaType.ATTACH, LsaType.ADLINKS):
            raise WireError(f"unknown LSA type {kind}")
        self.type: int = kind
        self.flags: int = flags
        self.lifetime: int = lifetime
        self.seq: int = seq
        self.origin: bytes = origin
        self.object: bytes = obj
        self.credentials: bytes = credentials
        self.raw = bytes(raw)
        self.key = self.raw[1:2] + self.origin + self.object
        self.ack = hashlib.sha1(self.raw, usedforsecurity=False).digest()[:8]
        body = self.raw[_HEAD.size : -SIGNATURE_LEN]
        self.body: tuple[Link, ...] | tuple[AdLink, ...] | jm.Join | None = self._parse_body(body)

    def _parse_body(self, body: bytes) -> tuple[Link, ...] | tuple[AdLink, ...] | jm.Join | None:
        if self.withdrawn:
            if body:
                raise WireError("a withdrawn LSA has no body")
            return None
        if self.type == LsaType.ATTACH:
            return jm.parse_record(body)
        if self.object[:-1] != bytes(19) or self.object[-1] >= MAX_FRAGMENTS:
            raise WireError("an LSA's fragment number is out of range")
        record = _LINK if self.type == LsaType.LINKS else _ADLINK
        if len(body) % record.size:
            raise WireError(f"an LSA body of {len(body)} bytes")
        rows = list(record.iter_unpack(body))
        if any(row[-1] == 0 for row in rows):
            raise WireError("a link of cost 0")
        if self.type == LsaType.LINKS:
            return tuple(Link(*row) for row in rows)
        return tuple(AdLink(*row) for row in rows)

    @property
    def withdrawn(self) -> bool:
        """Whether this takes back what was advertised under the same key."""
        return bool(self.flags & FLAG_WITHDRAWN)

    @property
    def confined(self) -> bool:
        """Whether this stays inside its AD."""
        return self.type != LsaType.ADLINKS

    @property
    def links(self) -> tuple[Link, ...]:
        """The neighbours in a LINKS advertisement (none when withdrawn)."""
        return self.body if self.type == LsaType.LINKS and self.body is not None else ()  # type: ignore[return-value]

    @property
    def adlinks(self) -> tuple[AdLink, ...]:
        """The adjacencies in an ADLINKS advertisement (none when withdrawn)."""
        return self.body if self.type == LsaType.ADLINKS and self.body is not None else ()  # type: ignore[return-value]

    @property
    def attachment(self) -> jm.Join | None:
        """The host's JOIN in an ATTACH advertisement."""
        return self.body if isinstance(self.body, jm.Join) else None


def fragment(number: int) -> bytes:
    """Return the object of the `number`-th LINKS or ADLINKS advertisement of a router."""
    return bytes(19) + bytes([number])


def pack_links(links: Sequence[Link]) -> bytes:
    """Return the body of a LINKS advertisement."""
    return b"".join(_LINK.pack(*link) for link in links)


def pack_adlinks(links: Sequence[AdLink]) -> bytes:
    """Return the body of an ADLINKS advertisement."""
    return b"".join(_ADLINK.pack(*link) for link in links)


def make(
    key: KeyPair,
    kind: LsaType,
    *,
    origin: bytes,
    obj: bytes,
    seq: int,
    lifetime: int,
    credentials: bytes,
    body: bytes = b"",
    withdrawn: bool = False,
) -> Lsa:
    """Return an advertisement signed by `key`; `origin` and `obj` are 20 bytes, `lifetime` in seconds."""
    flags = FLAG_WITHDRAWN if withdrawn else 0
    head = _HEAD.pack(VERSION, kind, flags, 0, lifetime, len(body), seq, origin, obj, credentials)
    return Lsa(head + body + key.sign(DOMAIN + head + body))


class LsaVerifier:
    """Decides whether an advertisement is its origin's own word; costly checks are remembered."""

    def __init__(self, ad: XID, cache: MembershipCache) -> None:
        """`ad` is the AD whose confined advertisements are ours to believe."""
        self._ad = ad
        self._cache = cache
        self._records: dict[bytes, None] = {}

    def check(self, lsa: Lsa) -> None:
        """Check certificate, AD, signature and, in an ATTACH, the host's JOIN; IdentityError if one fails."""
        member = self._cache.check(lsa.credentials)
        if member.hid.id != lsa.origin:
            raise IdentityError(f"an LSA of HID:{lsa.origin.hex()} with the credentials of {member.hid}")
        if lsa.confined and member.ad != self._ad:
            raise IdentityError(f"an LSA inside {self._ad} by {member.hid} of {member.ad}")
        if not keys.verify(member.public, lsa.raw[-SIGNATURE_LEN:], DOMAIN + lsa.raw[:-SIGNATURE_LEN]):
            raise IdentityError(f"an LSA is not signed by {member.hid}")
        if lsa.attachment is not None:
            self._check_attachment(lsa, lsa.attachment)

    def _check_attachment(self, lsa: Lsa, join: jm.Join) -> None:
        if join.raw in self._records:
            return
        hid = keys.xid_of(join.public, XidType.HID)
        if hid.id != lsa.object or join.router != lsa.origin or join.ad != self._ad.id:
            raise IdentityError(f"an attachment of {hid} that is not for the router that tells it")
        if not jm.authentic(join, join.public):
            raise IdentityError(f"an attachment is not signed by {hid}")
        if len(self._records) >= _RECORD_CACHE:
            del self._records[next(iter(self._records))]
        self._records[join.raw] = None


assert _HEAD.size == 56 + CREDENTIALS_LEN
