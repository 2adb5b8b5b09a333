"""Writes cpio archives in the "newc" format that the Linux kernel takes as initramfs.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel: magic 070701 and
13 fields of 8 hex digits, name with NUL, both parts padded to 4 bytes, an entry `TRAILER!!!` last.
Archives may follow each other in one initrd when each starts at a multiple of 4 bytes.
"""

from __future__ import annotations

import stat

_TRAILER = "TRAILER!!!"


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class Archive:
    """An archive under construction; every parent directory must be added before what it holds."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Adds the directory `name` (relative, no leading slash)."""
        self._add(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Adds the regular file `name` with content `data`."""
        self._add(name, stat.S_IFREG | mode, data)

    def device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Adds the character device `name`."""
        self._add(name, stat.S_IFCHR | mode, b"", (major, minor))

    def _add(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        label = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(label), 0)
        if name == _TRAILER:
            fields = (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, len(label), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._parts.append(_pad(header + label) + _pad(data))

    def finish(self) -> bytes:
        """The whole archive, its length a multiple of 512 bytes."""
        self._add(_TRAILER, 0, b"")
        data = b"".join(self._parts)
        return data + bytes(-len(data) % 512)
