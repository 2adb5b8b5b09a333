"""Which other files a disk image names: read from its header, without opening any of them.

QEMU runs as root and opens what a qcow2 header names: a backing file, an external data file. `qemu-img info`
tells both, but opens the data file to do so; this reads the header alone. Format: QEMU's
docs/interop/qcow2.txt. Integers are big-endian.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xiatb.errors import XiatbError

MAGIC: Final = b"QFI\xfb"
_V2: Final = struct.Struct(">4sIQIIQ")
_V2_LENGTH: Final = 72
_INCOMPATIBLE_AT, _LENGTH_AT, _V3_LENGTH = 72, 100, 104
_DATA_FILE_BIT: Final = 1 << 2
_END, _DATA_FILE = 0, 0x44415441
_MOST_NAME: Final = 1023
_MOST_CLUSTER_BITS: Final = 21
FORMATS: Final = ("qcow2", "raw")


class ImageError(XiatbError):
    """A disk image is not what it is said to be, or names files that it may not name."""


@dataclass(frozen=True)
class Header:
    """What a qcow2 header names, "" for nothing; `outside`: its data are in another file, named or not."""

    backing: str = ""
    data_file: str = ""
    outside: bool = False


def parse(data: bytes) -> Header:
    """The header at the beginning of `data`, which holds the file's first cluster or as much as there is.

    Raises ImageError for what is no qcow2 image of version 2 or 3, or contradicts itself."""
    if len(data) < _V2_LENGTH or data[:4] != MAGIC:
        raise ImageError("is no qcow2 image")
    _, version, backing_at, backing_size, bits, _ = _V2.unpack_from(data)
    if version not in (2, 3) or not 9 <= bits <= _MOST_CLUSTER_BITS:
        raise ImageError(f"is a qcow2 image of version {version} with clusters of 2^{bits} bytes")
    length, incompatible = _V2_LENGTH, 0
    if version == 3:
        if len(data) < _V3_LENGTH:
            raise ImageError("has a qcow2 header that ends early")
        (incompatible,) = struct.unpack_from(">Q", data, _INCOMPATIBLE_AT)
        (length,) = struct.unpack_from(">I", data, _LENGTH_AT)
        if length < _V3_LENGTH:
            raise ImageError(f"has a qcow2 header of {length} bytes")
    cluster = data[: 1 << bits]
    backing = _piece(cluster, backing_at, backing_size, "name of a backing file") if backing_at else b""
    extensions = _extensions(cluster, length, backing_at or len(cluster))
    data_file = extensions.get(_DATA_FILE, b"")
    outside = bool(incompatible & _DATA_FILE_BIT) or _DATA_FILE in extensions
    return Header(_name(backing), _name(data_file), outside)


def _extensions(cluster: bytes, begin: int, end: int) -> dict[int, bytes]:
    """The header extensions by type, up to the one that ends them or the byte `end`."""
    found: dict[int, bytes] = {}
    at = begin
    while at + 8 <= min(end, len(cluster)):
        kind, size = struct.unpack_from(">II", cluster, at)
        if kind == _END:
            break
        found[kind] = _piece(cluster, at + 8, size, "header extension")
        at += 8 + (size + 7) // 8 * 8
    return found


def _piece(cluster: bytes, at: int, size: int, what: str) -> bytes:
    if at + size > len(cluster):
        raise ImageError(f"has a qcow2 header whose {what} leaves its first cluster")
    return cluster[at : at + size]


def _name(raw: bytes) -> str:
    """For messages: bounded, as text."""
    return raw[:_MOST_NAME].decode(errors="replace")


def read(path: Path) -> Header:
    """The header of the qcow2 image at `path`, which must be a regular file itself, no link to one.

    Raises ImageError, also when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageError("is no regular file")
            return parse(file.read(1 << _MOST_CLUSTER_BITS))
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
    except ImageError as error:
        raise ImageError(f"{path} {error.message}") from None


def check(path: Path, form: str, *, backing: bool = False) -> None:
    """Raise ImageError unless the image at `path` of format `form` ("qcow2" or "raw", which has no header)
    keeps all its data in itself; `backing`: it may name a backing file."""
    if form not in FORMATS:
        raise ImageError(f"{path} has the format {form!r}, which is not known here")
    if form == "raw":
        return
    header = read(path)
    if header.outside:
        named = repr(header.data_file) if header.data_file else "which it does not name"
        raise ImageError(f"{path} keeps its data in another file, {named}")
    if header.backing and not backing:
        raise ImageError(f"{path} lies on another file, {header.backing!r}")
