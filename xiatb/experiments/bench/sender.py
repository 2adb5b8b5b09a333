"""A packet generator: one frame again and again, by sendmmsg(2) through ctypes.

Python is out of the way once a burst is in the kernel, so the kernel's path is what is measured.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.lab.namespaces import inside

BURST = 64
_SO_SNDBUFFORCE = 32


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    """struct msghdr of sendmsg(2)."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class Message(ctypes.Structure):
    """struct mmsghdr of sendmmsg(2)."""

    _fields_ = [("header", _Header), ("sent", ctypes.c_uint)]


_libc = ctypes.CDLL(None, use_errno=True)


class Sender:
    """Sends one frame (with Ethernet header) out of an interface; the caller's thread is its core."""

    def __init__(self, netns: Path, port: str, frame: bytes) -> None:
        with inside(netns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 << 20)
        with inside(netns):
            self._socket.bind((port, 0))
        self._frame = ctypes.create_string_buffer(frame, len(frame))
        self._iovec = _Iovec(ctypes.cast(self._frame, ctypes.c_void_p), len(frame))
        self._messages = (Message * BURST)()
        for message in self._messages:
            message.header.iov, message.header.iovlen = ctypes.pointer(self._iovec), 1

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()

    def run(self, until: float) -> None:
        """Sends as fast as it goes until this time (monotonic seconds). Raises XiatbError."""
        number = self._socket.fileno()
        while time.monotonic() < until:
            if _libc.sendmmsg(number, self._messages, BURST, 0) < 0:
                raise XiatbError(f"sendmmsg: {os.strerror(ctypes.get_errno())}")


def delivered(sender: Sender, count: Callable[[], int], seconds: float, *, core: int = 0) -> float:
    """Packets a second that arrive while `sender` sends on one core; `count` tells how many have come.

    The first fifth of the time does not count."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core if core in cores else min(cores)})
    try:
        sender.run(time.monotonic() + seconds / 5)
        start, before = time.monotonic(), count()
        sender.run(start + seconds)
        return (count() - before) / (time.monotonic() - start)
    finally:
        os.sched_setaffinity(0, cores)
