"""Which local application owns which SID, and the local routes that follow from it.

An owner is any hashable thing with a lifetime (a control session); when it goes, `release` frees all
its SIDs. Whoever wants a SID proves that it holds the SID's key, so that no application can take
another's service.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from xiatb.errors import IdentityError
from xiatb.identity.keys import check
from xiatb.node.control_protocol import BIND_PURPOSE, EPHEMERAL_PREFIX, ControlError
from xiatb.wire.xid import XID, XidType

MAX_SIDS = 4096
"""SIDs that one node binds at most."""


class Bindings:
    """The table of bound SIDs.

    changed(key24, bound) is called after every change, so that the node sets or removes the route.
    """

    def __init__(self, hid: XID, changed: Callable[[bytes, bool], None], max_sids: int = MAX_SIDS) -> None:
        self._hid = hid
        self._changed = changed
        self._max_sids = max_sids
        self._owners: dict[bytes, Hashable] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def sids(self) -> list[bytes]:
        """The bound SIDs' 24-byte keys, in the order in which they were bound."""
        return list(self._owners)

    def bind(self, sid: XID, public: bytes, signature: bytes, owner: Hashable) -> None:
        """Gives `sid` to `owner`.

        public: raw 32-byte Ed25519 key; signature: 64 bytes over BIND_PURPOSE + HID key + SID key.
        Both are empty for an ephemeral SID (prefix EPHEMERAL_PREFIX), which no key stands behind.
        Raises ControlError EADDRNOTAVAIL (no SID), EACCES (proof), EADDRINUSE, ENOSPC.
        """
        if sid.type != XidType.SID:
            raise ControlError("EADDRNOTAVAIL", f"{sid}: only a SID can be bound")
        ephemeral = sid.id.startswith(EPHEMERAL_PREFIX)
        if not ephemeral or public or signature:
            self._prove(sid, public, signature)
        if sid.key in self._owners:
            raise ControlError("EADDRINUSE", f"{sid} is bound by another socket on this node")
        if len(self._owners) >= self._max_sids:
            raise ControlError("ENOSPC", f"this node binds at most {self._max_sids} SIDs")
        self._owners[sid.key] = owner
        self._changed(sid.key, True)

    def _prove(self, sid: XID, public: bytes, signature: bytes) -> None:
        try:
            check(sid, public, signature, BIND_PURPOSE + self._hid.key + sid.key)
        except IdentityError as error:
            raise ControlError("EACCES", f"no proof of the key of {sid}: {error.message}") from error

    def owns(self, sid: XID, owner: Hashable) -> bool:
        """Whether `sid` is bound by `owner`."""
        return self._owners.get(sid.key) is owner

    def unbind(self, sid: XID, owner: Hashable) -> None:
        """Takes `sid` from its owner. Raises ControlError EINVAL when it is not that owner's."""
        if self._owners.get(sid.key) is not owner:
            raise ControlError("EINVAL", f"{sid} is not bound by this connection")
        del self._owners[sid.key]
        self._changed(sid.key, False)

    def release(self, owner: Hashable) -> None:
        """Takes every SID from an owner that is gone."""
        for key in [key for key, holder in self._owners.items() if holder is owner]:
            del self._owners[key]
            self._changed(key, False)
