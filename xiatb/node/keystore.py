"""Keys of services that a program made with `XmakeNewSID`: one PEM file each, as xia-core's `key/`.

The directory is $XIA_KEYS, else `~/.xiatb/keys`; it is made with mode 0700, files have mode 0600.
"""

from __future__ import annotations

import os
from pathlib import Path

from xiatb.errors import IdentityError
from xiatb.identity.keys import KeyPair
from xiatb.wire.xid import XID, XidType

ENVIRONMENT = "XIA_KEYS"


def directory() -> Path:
    """Where the keys are."""
    named = os.environ.get(ENVIRONMENT)
    return Path(named) if named else Path.home() / ".xiatb" / "keys"


def _path(sid: XID) -> Path:
    return directory() / f"{sid.id.hex()}.pem"


def make_sid() -> XID:
    """Makes a key pair, keeps it, and returns its SID. Raises IdentityError."""
    key = KeyPair.generate()
    sid = key.xid(XidType.SID)
    try:
        directory().mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"{directory()}: {error}") from error
    key.save(_path(sid))
    return sid


def key_of(sid: XID) -> KeyPair | None:
    """The key pair behind a SID, None when it is not ours. Raises IdentityError for an unsafe file."""
    path = _path(sid)
    if not path.exists():
        return None
    key = KeyPair.from_pem_file(path)
    if key.xid(XidType.SID) != sid:
        raise IdentityError(f"{path}: holds another key")
    return key


def remove_sid(sid: XID) -> bool:
    """Forgets a key; False when it was not ours."""
    path = _path(sid)
    if not path.exists():
        return False
    path.unlink()
    return True
