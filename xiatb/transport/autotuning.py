"""Buffers that grow with the path: what a stream without set sizes may hold.

The receiver's is dynamic right-sizing (Fisk and Feng, 2001, as in Linux): the bytes that the application
took in one round trip are what a window must hold, and twice that lets the sender's window double in the
next.  The sender's is twice what is in flight: as much again to send when acknowledgements come.
"""

from __future__ import annotations

RECV_START = 4 << 20
RECV_MAX = 32 << 20
SEND_START = 1 << 20
SEND_MAX = 32 << 20
"""1 Gbit/s at 100 ms are 12.5 MB in flight."""
_SLACK = 1 << 16
_FINEST = 0.0005
"""Seconds; shorter rounds than this are measured together."""


class WindowGrowth:
    """Receive buffer size of one stream.  Sizes in bytes, times in seconds."""

    __slots__ = ("_from", "_most", "_round", "_size", "due")

    def __init__(self, size: int, most: int) -> None:
        """Begin with `size`, never exceed `most`."""
        self.due = 0.0
        """When the next call of `on_data` does something."""
        self._size = size
        self._most = most
        self._round = 0.0
        self._from = 0

    def on_data(self, now: float, taken: int, answered: float) -> int:
        """Data came at or after `due`: `taken` bytes have been read by the application so far, and the
        acknowledgement that this data answers went out `answered` ago.  Returns the size from now on."""
        if self._round:
            wanted = 2 * (taken - self._from) + _SLACK
            if wanted > self._size:
                self._size = min(wanted, self._most)
            # An answer may be late because there was nothing to send; a longer path shows in every round.
            answered = min(answered, 1.25 * self._round)
        self._from = taken
        self._round = max(answered, _FINEST)
        self.due = now + self._round
        return self._size


def send_limit(limit: int, flight: int) -> int:
    """The bound on bytes written and not acknowledged, now `limit`, when `flight` bytes were in flight."""
    wanted = 2 * flight + _SLACK
    if wanted <= limit:
        return limit
    return wanted if wanted < SEND_MAX else max(limit, SEND_MAX)
