"""The bpf(2) system call, as far as the engine needs it: maps by descriptor, and test runs of a program.

Layouts: `union bpf_attr` of <linux/bpf.h>. All integers are in host byte order.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import NamedTuple

from xiatb.fastpath.errors import FastpathError

ANY = 0
"""BPF_ANY: an update makes or replaces."""

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_CREATE, _LOOKUP, _UPDATE, _DELETE, _PROG_LOAD, _TEST_RUN = 0, 1, 2, 3, 5, 10
_MAP_BY_ID, _INFO = 14, 15
_ARRAY, _SCHED_CLS = 2, 3
_NEW_PROGRAM = struct.Struct("=IIQQIIQII16s")
_MAP = struct.Struct("=I4xQQQ")
_RUN = struct.Struct("=IIIIQQIIIIQQIII4x")
_CONTEXT_LEN = 48
_CONTEXT_IFINDEX = 36
"""Offset of ingress_ifindex in `struct __sk_buff`."""
_ROOM = 256
"""Octets that the frame of a test run may grow by."""

_libc = ctypes.CDLL(None, use_errno=True)


class Run(NamedTuple):
    """Outcome of a test run: the program's verdict (signed), the frame as it is now, nanoseconds a run."""

    verdict: int
    frame: bytes
    nanoseconds: int


def _call(command: int, attributes: bytes | ctypes.Array[ctypes.c_char], size: int) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise FastpathError(f"bpf(2) has no known number on {platform.machine()}")
    result = int(_libc.syscall(number, command, attributes, size))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Map:
    """A map by its descriptor, which somebody else owns. Keys and values are bytes of the map's sizes."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self.fd = fd
        self._key = ctypes.create_string_buffer(key_size)
        self._value = ctypes.create_string_buffer(value_size)
        self._attributes = _MAP.pack(fd, ctypes.addressof(self._key), ctypes.addressof(self._value), ANY)
        self._key_only = _MAP.pack(fd, ctypes.addressof(self._key), 0, 0)

    def update(self, key: bytes, value: bytes) -> None:
        """Makes or replaces an entry. Raises OSError (E2BIG: full)."""
        self._key.raw = key
        self._value.raw = value
        _call(_UPDATE, self._attributes, _MAP.size)

    def lookup(self, key: bytes) -> bytes:
        """The value of an entry; of a per-CPU map one value after another. Raises OSError (ENOENT)."""
        self._key.raw = key
        _call(_LOOKUP, self._attributes, _MAP.size)
        return self._value.raw

    def delete(self, key: bytes) -> None:
        """Takes an entry out. Raises OSError (ENOENT)."""
        self._key.raw = key
        _call(_DELETE, self._key_only, _MAP.size)


def new_array(value_size: int, entries: int) -> int:
    """Descriptor of a new array map (keys are u32). Raises OSError."""
    return _call(_CREATE, struct.pack("=IIIII", _ARRAY, 4, value_size, entries, 0), 20)


def map_id(descriptor: int) -> int:
    """The number by which `map_by_id` finds a map for as long as a program uses it. Raises OSError."""
    info = ctypes.create_string_buffer(8)  # struct bpf_map_info begins with type and id
    _call(_INFO, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)), 16)
    return int(struct.unpack_from("=I", info, 4)[0])


def map_by_id(number: int) -> int:
    """A descriptor of the map with this number. Raises OSError (ENOENT: there is none any more)."""
    return _call(_MAP_BY_ID, struct.pack("=III", number, 0, 0), 12)


def load_classifier(code: bytes, licence: bytes, name: bytes) -> int:
    """Descriptor of a loaded tc classifier; `code` is eBPF, `name` at most 15 bytes. Raises OSError."""
    text, terms = ctypes.create_string_buffer(code), ctypes.create_string_buffer(licence)
    attributes = _NEW_PROGRAM.pack(
        *(_SCHED_CLS, len(code) // 8, ctypes.addressof(text), ctypes.addressof(terms)),
        *(0, 0, 0, 0, 0, name),
    )
    return _call(_PROG_LOAD, attributes, _NEW_PROGRAM.size)


def test_run(program: int, frame: bytes, ingress: int, repeat: int = 1) -> Run:
    """Runs a classifier on a frame (Ethernet header first) as if it had come in by interface `ingress`.

    The kernel takes frames of 14 to about 3500 octets; the Ethernet destination must be a broadcast or that
    of the network namespace's loopback (zeros), or the program sees a frame for somebody else. A redirect is
    a verdict here and does not happen. Raises OSError.
    """
    source = (ctypes.c_char * len(frame)).from_buffer_copy(frame)
    target = ctypes.create_string_buffer(len(frame) + _ROOM)
    context = ctypes.create_string_buffer(_CONTEXT_LEN)
    struct.pack_into("=I", context, _CONTEXT_IFINDEX, ingress)
    attributes = ctypes.create_string_buffer(
        _RUN.pack(
            *(program, 0, len(frame), len(target), ctypes.addressof(source), ctypes.addressof(target)),
            *(repeat, 0, _CONTEXT_LEN, 0, ctypes.addressof(context), 0, 0, 0, 0),
        ),
        _RUN.size,
    )
    _call(_TEST_RUN, attributes, _RUN.size)
    verdict, _, size = struct.unpack_from("=iII", attributes, 4)
    (duration,) = struct.unpack_from("=I", attributes, 36)
    return Run(verdict, target.raw[:size], duration)
