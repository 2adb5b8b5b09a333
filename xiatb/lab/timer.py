"""A timer as a file descriptor, exact to microseconds (os.timerfd_* came with Python 3.13)."""

from __future__ import annotations

import contextlib
import ctypes
import os

_CLOCK_MONOTONIC, _TFD_ABSTIME = 1, 1


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


class Alarm:
    """A timerfd(2) on the monotonic clock; readable when it has rung."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._settime = libc.timerfd_settime
        self._spec = _Itimerspec()
        self._pointer = ctypes.byref(self._spec)
        self._set_for: int | None = None

    def set(self, when: int | None) -> None:
        """Ring at `when` (monotonic ns); None: never."""
        if when == self._set_for:
            return
        self._set_for = when
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(when or 0, 10**9)
        self._settime(self.descriptor, _TFD_ABSTIME, self._pointer, None)

    def clear(self) -> None:
        """It rang; make the descriptor quiet again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 8)
        self._set_for = None

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)
