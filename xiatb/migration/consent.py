"""The guest's own word that it may move: one host, one move, signed by the key behind its HID.

    signed = "xiatb-consent\\0" | HID (20 bytes) | SID of the destination's daemon (20) | u64 sequence

Sequences of a guest only grow. A destination takes each at most once and remembers the newest on disk, so a
consent that was overheard moves nothing twice and leads nowhere else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from xiatb.errors import IdentityError
from xiatb.identity.consent import consent_bytes
from xiatb.identity.keys import KeyPair, check
from xiatb.migration.messages import Consent
from xiatb.wire.xid import XID, XidType


def sign(key: KeyPair, destination: XID, sequence: int) -> Consent:
    """A consent of the guest that holds `key`, to move to the host whose daemon has SID `destination`."""
    signature = key.sign(consent_bytes(key.xid(XidType.HID), destination, sequence))
    return Consent(public=key.public.hex(), sequence=sequence, signature=signature.hex())


class ConsentBook:
    """The newest consent of each guest that this host has taken, in one file (0600)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, consent: Consent, hid: str, own: XID) -> None:
        """Use a consent up; raises IdentityError when it is forged, for another host or guest, or not new."""
        if not hid:
            raise IdentityError("a guest without HID cannot consent")
        guest = XID.parse(hid)
        check(guest, bytes.fromhex(consent.public), bytes.fromhex(consent.signature),
              consent_bytes(guest, own, consent.sequence))  # fmt: skip
        newest = self._read()
        if consent.sequence <= newest.get(hid, 0):
            raise IdentityError(f"this consent of {hid} has been used already")
        newest[hid] = consent.sequence
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(newest, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)

    def _read(self) -> dict[str, int]:
        """Raises IdentityError for a damaged file: without memory no consent can be told from a replay."""
        if not self._path.exists():
            return {}
        try:
            return {str(hid): int(number) for hid, number in json.loads(self._path.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise IdentityError(f"{self._path}: {error}") from None
