"""Errors of the socket API: at once errors of xiatb and OSErrors with the errno that a socket reports.

So `except ConnectionResetError`, `except OSError as e: e.errno` and `except XiatbError` all work.
"""

from __future__ import annotations

import errno

from xiatb.errors import TransportError, WireError, XiatbError


class SocketError(TransportError, OSError):
    """A socket operation failed; `errno` and `strerror` as in OSError."""

    def __init__(self, number: int, message: str) -> None:
        TransportError.__init__(self, message)
        OSError.__init__(self, number, message)


class RefusedSocketError(SocketError, ConnectionRefusedError):
    """ECONNREFUSED: nobody listens on that SID."""


class ResetSocketError(SocketError, ConnectionResetError):
    """ECONNRESET: the peer aborted the connection."""


class AbortedSocketError(SocketError, ConnectionAbortedError):
    """ECONNABORTED: this side aborted the connection."""


class PipeSocketError(SocketError, BrokenPipeError):
    """EPIPE: this side has closed its direction already."""


class TimedOutSocketError(SocketError, TimeoutError):
    """ETIMEDOUT: nothing was heard from the peer in time."""


_CLASSES: dict[int, type[SocketError]] = {
    errno.ECONNREFUSED: RefusedSocketError,
    errno.ECONNRESET: ResetSocketError,
    errno.ECONNABORTED: AbortedSocketError,
    errno.EPIPE: PipeSocketError,
    errno.ETIMEDOUT: TimedOutSocketError,
}


def socket_error(number: int, message: str) -> SocketError:
    """The error of an errno value."""
    return _CLASSES.get(number, SocketError)(number, message)


def from_xiatb(error: XiatbError) -> SocketError:
    """Any error of the lower rooms as one of the socket API (EINVAL when it names no errno)."""
    if isinstance(error, SocketError):
        return error
    number = getattr(error, "errno", None)
    if not isinstance(number, int):
        number = errno.EADDRNOTAVAIL if isinstance(error, WireError) else errno.EINVAL
    return socket_error(number, error.message)
