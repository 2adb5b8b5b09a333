"""What a transport object tells its owner."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple


class EventKind(IntEnum):
    """Kinds of event; the value is also the order in which events of one moment are given."""

    CONNECTED = 0
    """The handshake is complete."""
    READABLE = 1
    """There are new bytes to read."""
    WRITABLE = 2
    """There is room to write again after a write was cut short, or the buffer fell below a limit."""
    EOF = 3
    """The peer closed its direction and everything before that has been received."""
    PEER_MOVED = 4
    """The peer proved a move; `detail` is its new DAG."""
    MOVED = 5
    """The peer acknowledged our move; `detail` is the seconds that took."""
    MOVE_FAILED = 6
    """The peer did not acknowledge our move in time; the stream goes on trying to send."""
    CLOSED = 7
    """The stream is over; `detail` is None or the error, which is also `stream.error`."""


class Event(NamedTuple):
    """One event; `detail` as described at its kind, else None."""

    kind: EventKind
    detail: Any = None
