"""What a guest signs to say that it may be moved to one host: HID, destination and a growing sequence.

    "xiatb-consent\\0" | HID (20 bytes) | SID of the destination's migration daemon (20) | sequence u64
"""

from __future__ import annotations

import struct

from xiatb.wire.xid import XID

_PURPOSE = b"xiatb-consent\0"


def consent_bytes(hid: XID, destination: XID, sequence: int) -> bytes:
    """The bytes under the signature, big endian."""
    return _PURPOSE + hid.id + destination.id + struct.pack(">Q", sequence)
