"""Brings a network interface up with the ioctls of netdevice(7); no netlink, no subprocess."""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU = 0x8913, 0x8914, 0x8922
_IFF_UP = 1
_REQUEST = struct.Struct("16si20x")


def bring_up(name: str, mtu: int | None = None) -> None:
    """Sets the MTU of interface `name` (bytes; None leaves it) and its UP flag. Raises OSError."""
    label = name.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if mtu is not None:
            fcntl.ioctl(sock, _SIOCSIFMTU, _REQUEST.pack(label, mtu))
        answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, _REQUEST.pack(label, 0))
        flags = struct.unpack_from("h", answer, 16)[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", label, flags | _IFF_UP))
