"""Membership of routers in an AD: the certificate in which an AD's key names a router's HID.

Join and routing messages carry 128 bytes of *credentials*: the router's Ed25519 public key
(32), the AD's public key (32) and the certificate (64), the AD key's signature over
`b"xiatb-member\\0" + AD key (24) + HID key (24)`. The XIDs are the hashes of the two keys
(identity room), so credentials that verify tie HID and AD to their keys with no other trust.
"""

from __future__ import annotations

from typing import NamedTuple

from xiatb.errors import IdentityError, WireError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.wire.xid import XID, XidType

DOMAIN = b"xiatb-member\0"
PUBLIC_LEN = 32
SIGNATURE_LEN = 64
CREDENTIALS_LEN = PUBLIC_LEN + PUBLIC_LEN + SIGNATURE_LEN
_CACHE_LIMIT = 4096


class Membership(NamedTuple):
    """Router `hid`, whose public key (32 bytes raw) is `public`, belongs to `ad`."""

    ad: XID
    hid: XID
    public: bytes


def issue(ad_key: KeyPair, hid: XID) -> bytes:
    """Return the 64-byte certificate with which the AD of `ad_key` takes `hid` in as a router."""
    return ad_key.sign(DOMAIN + ad_key.xid(XidType.AD).key + hid.key)


def verify(ad: XID, ad_public: bytes, cert: bytes, hid: XID) -> bool:
    """Tell whether `cert` (64 bytes) by the key `ad_public` (32 bytes), whose XID is `ad`, names `hid`."""
    if len(ad_public) != PUBLIC_LEN or len(cert) != SIGNATURE_LEN:
        return False
    if keys.xid_of(ad_public, XidType.AD) != ad:
        return False
    return keys.verify(ad_public, cert, DOMAIN + ad.key + hid.key)


def pack_credentials(public: bytes, ad_public: bytes, cert: bytes) -> bytes:
    """Return the 128 bytes of credentials of a router; WireError when a part has a wrong length."""
    if len(public) != PUBLIC_LEN or len(ad_public) != PUBLIC_LEN or len(cert) != SIGNATURE_LEN:
        raise WireError("credentials are two 32-byte public keys and a 64-byte certificate")
    return bytes(public) + bytes(ad_public) + bytes(cert)


def claimed(credentials: bytes) -> Membership:
    """Return what 128 bytes of credentials claim; only the key-to-XID binding is computed, nothing proved."""
    if len(credentials) != CREDENTIALS_LEN:
        raise WireError(f"credentials have {CREDENTIALS_LEN} bytes, not {len(credentials)}")
    public = bytes(credentials[:PUBLIC_LEN])
    ad_public = bytes(credentials[PUBLIC_LEN : 2 * PUBLIC_LEN])
    return Membership(keys.xid_of(ad_public, XidType.AD), keys.xid_of(public, XidType.HID), public)


class MembershipCache:
    """Credentials that were verified before: one signature check for each router ever met.

    Bounded; the oldest verified credentials go first. What fails is not remembered, so forged
    credentials cannot push good ones out.
    """

    def __init__(self, limit: int = _CACHE_LIMIT) -> None:
        self._limit = limit
        self._verified: dict[bytes, Membership] = {}

    def known(self, credentials: bytes) -> Membership | None:
        """Return the membership of credentials that were verified before, else None."""
        return self._verified.get(credentials)

    def check(self, credentials: bytes) -> Membership:
        """Return the membership that `credentials` (128 bytes) prove; IdentityError when they do not."""
        found = self._verified.get(credentials)
        if found is not None:
            return found
        member = claimed(credentials)
        ad_public = credentials[PUBLIC_LEN : 2 * PUBLIC_LEN]
        if not verify(member.ad, ad_public, credentials[2 * PUBLIC_LEN :], member.hid):
            raise IdentityError(f"{member.hid} is not certified by {member.ad}")
        if len(self._verified) >= self._limit:
            del self._verified[next(iter(self._verified))]
        self._verified[bytes(credentials)] = member
        return member
