"""Failures of a transport connection; each names the errno that a socket layer reports for it."""

from __future__ import annotations

import errno

from xiatb.errors import TransportError


class StreamError(TransportError):
    """A stream ended other than by an orderly close; `errno` is what a socket would report."""

    errno: int = errno.EIO


class RefusedError(StreamError):
    """The peer answered the connect with a reset: nobody listens on that SID."""

    errno = errno.ECONNREFUSED


class ResetError(StreamError):
    """The peer aborted the connection."""

    errno = errno.ECONNRESET


class AbortedError(StreamError):
    """This side aborted the connection."""

    errno = errno.ECONNABORTED


class TimedOutError(StreamError):
    """Nothing was heard from the peer within the configured time."""

    errno = errno.ETIMEDOUT


class UnreachableError(StreamError):
    """The network reported, during connect, that the peer cannot be reached."""

    errno = errno.EHOSTUNREACH


class NotConnectedError(StreamError):
    """The operation needs an open connection."""

    errno = errno.ENOTCONN


class ClosedForWritingError(StreamError):
    """Data was written after this side had closed its direction."""

    errno = errno.EPIPE


class MessageTooLongError(TransportError):
    """A datagram does not fit into one packet of the current MTU."""

    errno: int = errno.EMSGSIZE


class InUseError(TransportError):
    """There is already a connection between these two SIDs."""

    errno: int = errno.EADDRINUSE
