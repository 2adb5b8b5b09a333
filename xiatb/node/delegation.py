"""The delegation of a guest that is about to be moved: a JOIN signed before the move, for one router.

A migration's destination gives an INVITE, the guest answers it while it still runs at the source, and the
destination keeps that JOIN until the guest has stopped there. So it is attached without a signature of its
own being waited for. What makes this safe is in the JOIN: it names the router, its AD, a nonce that only this
router takes and for this guest only, the guest's MAC address, and a sequence above all earlier ones, so that
it serves once, in one place, and not after any later JOIN of the guest.

Used by HostJoin (which signs) and by Handover (which keeps).
"""

from __future__ import annotations

from xiatb.errors import IdentityError, WireError
from xiatb.identity import keys
from xiatb.node import join_messages as jm
from xiatb.node.membership import MembershipCache
from xiatb.wire.xid import XID, XidType


def invitation(raw: bytes, hid: XID, cache: MembershipCache) -> jm.Beacon:
    """The INVITE in `raw`, proved: for `hid`, signed by a router whose AD vouches for it.

    Raises WireError and IdentityError.
    """
    beacon = jm.parse(raw)
    if not isinstance(beacon, jm.Beacon) or beacon.target == jm.NOBODY:
        raise WireError("this is no invitation")
    if beacon.target != hid.id:
        raise IdentityError(f"the invitation is for another host than {hid}")
    member = cache.check(beacon.credentials)
    if not jm.authentic(beacon, member.public):
        raise IdentityError(f"the invitation is not signed by {member.hid}")
    return beacon


def delegation(raw: bytes, hid: XID, router: XID, ad: XID) -> jm.Join:
    """The JOIN in `raw`, proved: of `hid` and for `router` in `ad`. Its nonce and sequence are judged when it
    is used. Raises WireError and IdentityError."""
    join = jm.parse_record(raw)
    if keys.xid_of(join.public, XidType.HID) != hid:
        raise IdentityError(f"the delegation is of another host than {hid}")
    if join.router != router.id or join.ad != ad.id:
        raise IdentityError(f"the delegation of {hid} is for another place")
    if not jm.authentic(join, join.public):
        raise IdentityError(f"the delegation is not signed by {hid}")
    return join
