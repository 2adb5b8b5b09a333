"""Bursts of frames on packet sockets, by batch.c where that has been compiled, else by Python.

Both ways have the same interface and results. The environment variable XIATB_NO_BATCH=1 chooses Python. A
`Batch` keeps the memory that frames are received into; it is used by one thread, and all sockets of that
thread share it (`shared`): what a call gives is valid until the thread's next receiving call.
"""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from xiatb.fastpath import trains
from xiatb.fastpath.trains import Buffer, Train

LIBRARY_PATH = Path(__file__).with_name("libxiabatch.so")
OFF_VARIABLE = "XIATB_NO_BATCH"
BURST = 64
"""Most frames of one system call."""
SLOT = 65536 + 192
"""Bytes that a received frame may take; batch.c has the same."""

_DROPS = frozenset(
    (
        errno.ENOBUFS,
        errno.EAGAIN,
        errno.ENETDOWN,
        errno.ENXIO,
        errno.ENODEV,
        errno.EMSGSIZE,
        errno.ENETUNREACH,
    )
)


def is_drop(error: OSError) -> bool:
    """Whether the kernel has dropped one frame (queue full, link down, too long), nothing worse."""
    return error.errno in _DROPS


def _slab() -> memoryview:
    """Room for BURST frames, from the kernel and not yet touched: 4 MiB of it would be most of what a small
    node uses, and hardly a socket ever fills more than the first pages of a slot."""
    return memoryview(mmap.mmap(-1, BURST * SLOT, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Batch(Protocol):
    """Bursts on non-blocking packet sockets. Frames are whole Ethernet frames."""

    kind: str
    """ "c" or "python"."""
    received: int
    """Frames that the last `frames` or `trains` took from the socket."""

    def frames(self, sock: socket.socket, limit: int = BURST) -> list[memoryview]:
        """Up to `limit` (at most BURST) waiting frames. Raises OSError (ENETDOWN: link down)."""

    def trains(self, sock: socket.socket, limit: int = BURST) -> list[Train]:
        """The same without Ethernet headers, neighbouring stream segments joined. Raises OSError."""

    def send(self, sock: socket.socket, frames: Sequence[Buffer]) -> list[int]:
        """Sends frames; the numbers of those that were dropped. Raises OSError for worse than a drop."""

    def send_train(
        self, sock: socket.socket, ethernet: bytes, header: bytes, payload: Buffer, mss: int
    ) -> list[int]:
        """Sends a train as its segments; the numbers of those that were dropped. Raises OSError.

        `ethernet`: the 14 bytes before each; `header`: XIP and XSTREAM header of the first segment;
        `payload`: contiguous, at most trains.MAX_SEGMENTS times `mss` bytes.
        """


class PlainBatch:
    """Bursts with one system call a frame."""

    kind = "python"

    def __init__(self) -> None:
        self.received = 0
        whole = _slab()
        self._slots = [whole[i * SLOT : (i + 1) * SLOT] for i in range(BURST)]

    def frames(self, sock: socket.socket, limit: int = BURST) -> list[memoryview]:
        """See `Batch`."""
        got: list[memoryview] = []
        receive_into = sock.recv_into
        self.received = 0
        try:
            for slot in self._slots[:limit]:
                got.append(slot[: receive_into(slot)])
        except BlockingIOError:
            pass
        except OSError:
            if not got:
                raise
        self.received = len(got)
        return got

    def trains(self, sock: socket.socket, limit: int = BURST) -> list[Train]:
        """See `Batch`."""
        return trains.join(self.frames(sock, limit))

    def send(self, sock: socket.socket, frames: Sequence[Buffer]) -> list[int]:
        """See `Batch`."""
        refused = []
        for number, frame in enumerate(frames):
            try:
                sock.send(frame)
            except OSError as error:
                if not is_drop(error):
                    raise
                refused.append(number)
        return refused

    def send_train(
        self, sock: socket.socket, ethernet: bytes, header: bytes, payload: Buffer, mss: int
    ) -> list[int]:
        """See `Batch`."""
        refused = []
        for number, parts in enumerate(trains.all_segments(header, payload, mss)):
            try:
                sock.sendmsg((ethernet, *parts))
            except OSError as error:
                if not is_drop(error):
                    raise
                refused.append(number)
        return refused


class _Exported(ctypes.Structure):
    """Py_buffer of CPython's stable interface (PEP 688 lists its members)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_export = ctypes.pythonapi.PyObject_GetBuffer
_export.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.c_void_p,)
_release.restype = None


class _Library:
    """The functions of batch.c. Raises OSError when the file does not load or is of another version."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        pointer, number = ctypes.c_void_p, ctypes.c_uint
        self.receive = library.xiatb_receive
        self.receive.argtypes = (ctypes.c_int, pointer, number, pointer)
        self.receive_trains = library.xiatb_receive_trains
        self.receive_trains.argtypes = (ctypes.c_int, pointer, number, pointer, pointer, pointer)
        self.join = library.xiatb_join
        self.join.argtypes = (pointer, number, pointer, pointer)
        self.keep_memory = library.xiatb_keep_memory
        self.send = library.xiatb_send
        self.send.argtypes = (ctypes.c_int, pointer, pointer, number, pointer)
        self.send_train = library.xiatb_send_train
        self.send_train.argtypes = (
            ctypes.c_int, pointer, number, pointer, ctypes.c_size_t, number, pointer
        )  # fmt: skip
        if library.xiatb_slot() != SLOT:
            raise OSError(errno.EINVAL, f"{path.name} is out of date")


def _failed(result: int) -> OSError:
    return OSError(-result, os.strerror(-result))


class HelperBatch:
    """Bursts by batch.c: one system call for up to BURST frames."""

    kind = "c"

    @classmethod
    def load(cls, path: Path) -> HelperBatch:
        """With the compiled batch.c at `path`. Raises OSError."""
        return cls(_Library(path))

    def __init__(self, library: _Library) -> None:
        self.received = 0
        self._library = library
        self._slab = _slab()
        self._first = ctypes.c_char.from_buffer(self._slab)
        self._sizes = array.array("I", bytes(4 * BURST))
        self._table = array.array("I", bytes(20 * BURST))
        self._refused = array.array("I", bytes(4 * trains.MAX_SEGMENTS))
        self._count = ctypes.c_uint()
        self._exported = _Exported()
        self._slab_at = ctypes.addressof(self._first)
        self._sizes_at = self._sizes.buffer_info()[0]
        self._table_at = self._table.buffer_info()[0]
        self._refused_at = self._refused.buffer_info()[0]
        self._count_at = ctypes.addressof(self._count)
        self._exported_at = ctypes.addressof(self._exported)
        self._slots = [self._slab[i * SLOT : (i + 1) * SLOT] for i in range(BURST)]

    def frames(self, sock: socket.socket, limit: int = BURST) -> list[memoryview]:
        """See `Batch`."""
        got = self._library.receive(sock.fileno(), self._slab_at, limit, self._sizes_at)
        if got < 0:
            self.received = 0
            raise _failed(got)
        self.received = got
        return [slot[:size] for slot, size in zip(self._slots, self._sizes[:got], strict=False)]

    def trains(self, sock: socket.socket, limit: int = BURST) -> list[Train]:
        """See `Batch`."""
        made = self._library.receive_trains(
            sock.fileno(), self._slab_at, limit, self._sizes_at, self._table_at, self._count_at
        )
        if made == 1 and self._table[4] == 1:
            # A lone frame need not pay for lists.
            self.received = 1
            at, size = self._table[:2]
            return [(self._slab[at : at + size], b"", 1)]
        self.received = self._count.value
        if made < 0:
            raise _failed(made)
        return self._views(made)

    def _views(self, made: int) -> list[Train]:
        slab, table = self._slab, iter(self._table[: 5 * made])
        return [
            (slab[at : at + header], bytes(slab[payload_at : payload_at + payload]), segments)
            for at, header, payload_at, payload, segments in zip(*[table] * 5, strict=True)
        ]

    def join(self, frames: Sequence[Buffer]) -> list[Train]:
        """As `trains.join`, of frames (at most BURST, SLOT bytes each) that are copied into the slab."""
        for number, frame in enumerate(frames):
            self._slots[number][: len(frame)] = frame
            self._sizes[number] = len(frame)
        made = self._library.join(self._slab_at, len(frames), self._sizes_at, self._table_at)
        if made < 0:
            raise _failed(made)
        return self._views(made)

    def send(self, sock: socket.socket, frames: Sequence[Buffer]) -> list[int]:
        """See `Batch`."""
        refused: list[int] = []
        for start in range(0, len(frames), BURST):
            some = frames[start : start + BURST]
            sizes = array.array("I", map(len, some))
            failed = self._library.send(
                sock.fileno(), b"".join(some), sizes.buffer_info()[0], len(some), self._refused_at
            )
            if failed:
                refused += [start + number for number in self._numbers(failed)]
        return refused

    def _numbers(self, failed: int) -> list[int]:
        if failed < 0:
            raise _failed(failed)
        return self._refused[:failed].tolist()

    def send_train(
        self, sock: socket.socket, ethernet: bytes, header: bytes, payload: Buffer, mss: int
    ) -> list[int]:
        """See `Batch`."""
        head = ethernet + header
        exported = self._exported_at
        _export(payload, exported, 0)
        try:
            failed = self._library.send_train(
                sock.fileno(), head, len(head), self._exported.buf, len(payload), mss, self._refused_at
            )
        finally:
            _release(exported)
        return self._numbers(failed) if failed else []


def _load() -> tuple[_Library | None, str]:
    if os.environ.get(OFF_VARIABLE, "0") not in ("", "0"):
        return None, f"{OFF_VARIABLE} is set"
    try:
        return _Library(LIBRARY_PATH), ""
    except (OSError, AttributeError) as error:
        return None, str(error)


_threads = threading.local()
_loaded: tuple[_Library | None, str] | None = None


def loaded() -> tuple[_Library | None, str]:
    """batch.c's functions, or None and why they are not used."""
    global _loaded
    if _loaded is None:
        _loaded = _load()
    return _loaded


def keep_memory() -> None:
    """For processes that stream: malloc keeps up to 16 MiB of freed memory.

    Else it gives pieces of streams back to the kernel and gets them again as new pages, which was two thirds
    of a receiver's system time at MTU 9000.
    """
    library, _ = loaded()
    if library is not None:
        library.keep_memory()


def shared() -> Batch:
    """This thread's batch."""
    batch: Batch | None = getattr(_threads, "batch", None)
    if batch is None:
        library, _ = loaded()
        batch = _threads.batch = HelperBatch(library) if library is not None else PlainBatch()
    return batch
