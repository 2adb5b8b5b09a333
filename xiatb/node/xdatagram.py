"""A datagram socket of the asyncio API."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from xiatb.errors import XiatbError
from xiatb.node.bound import BoundEndpoint
from xiatb.node.socket_errors import SocketError, from_xiatb, socket_error
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID

OnReceive = Callable[[bytes, DAG], None]
QUEUE = 1024
"""Datagrams that wait for `recv`; the oldest go first."""


class XDatagram:
    """One bound SID that sends and receives datagrams. Made by `aio.open_datagram`."""

    def __init__(self, bound: BoundEndpoint, on_receive: OnReceive | None) -> None:
        self._bound = bound
        self._on_receive = on_receive
        self._queue: deque[tuple[bytes, DAG]] = deque(maxlen=QUEUE)
        self._readers: deque[asyncio.Future[None]] = deque()
        self._peer: DAG | None = None
        self._failure: SocketError | None = None
        bound.on_datagrams = self._arrived
        bound.on_lost = self._lost

    @property
    def sid(self) -> XID:
        """The SID of this socket."""
        return self._bound.sid

    @property
    def local_dag(self) -> DAG:
        """The address that peers may send to."""
        return self._bound.endpoint.local

    def on_receive(self, callback: OnReceive | None) -> None:
        """Calls `callback(payload, source)` for every datagram, in place of `recv`; None ends that."""
        self._on_receive = callback

    def connect(self, to: DAG) -> None:
        """Makes `to` the default peer, which is told of every move. Datagrams of others still come."""
        if self._peer is not None:
            self._bound.endpoint.datagram.disconnect(self._peer.intent)
        self._peer = to
        self._bound.endpoint.datagram.connect(to, time.monotonic())

    def send(self, payload: bytes | bytearray | memoryview, to: DAG | None = None) -> bool:
        """Sends one datagram to `to` or the connected peer; False when the queue is full.

        Raises SocketError: EMSGSIZE, EDESTADDRREQ, ENETDOWN.
        """
        if self._failure is not None:
            raise self._failure
        destination = to or self._peer
        if destination is None:
            raise socket_error(errno.EDESTADDRREQ, "where to? the socket is not connected")
        try:
            sent = self._bound.endpoint.send_datagram(payload, destination, time.monotonic())
        except XiatbError as error:
            raise from_xiatb(error) from error
        self._bound.driver.poke()
        return sent

    async def recv(self) -> tuple[bytes, DAG]:
        """The next datagram and its source. Raises SocketError ENETDOWN, EBADF."""
        while not self._queue:
            if self._failure is not None:
                raise self._failure
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            finally:
                if reader in self._readers:
                    self._readers.remove(reader)
        return self._queue.popleft()

    @property
    def bound(self) -> BoundEndpoint:
        """The bound SID beneath, for services that need its driver."""
        return self._bound

    def unread(self, got: tuple[bytes, DAG]) -> None:
        """Puts a datagram back; the next `recv` gives it."""
        self._queue.appendleft(got)

    def room(self, to: DAG) -> int:
        """The largest payload that fits one datagram to `to`, bytes."""
        return self._bound.endpoint.datagram.room(to)

    def peer_dag(self, sid: XID) -> DAG | None:
        """Where a peer has proved to have moved to; None when it has not moved."""
        return self._bound.endpoint.datagram.peer_dag(sid)

    def stats(self) -> dict[str, Any]:
        """Counters of the socket."""
        return {**self._bound.endpoint.describe(), "socket": self._bound.driver.counters()}

    def _arrived(self) -> None:
        callback = self._on_receive
        for payload, source in self._bound.endpoint.receive_datagrams():
            if callback is not None:
                callback(payload, source)
            else:
                self._queue.append((payload, source))
        while self._queue and self._readers:
            self._wake_one()

    def _wake_one(self) -> None:
        reader = self._readers.popleft()
        if not reader.done():
            reader.set_result(None)

    def _lost(self, error: XiatbError) -> None:
        self._failure = self._failure or from_xiatb(error)
        while self._readers:
            self._wake_one()

    def close(self) -> None:
        """Closes the socket; its SID is free again."""
        self._lost(from_xiatb(socket_error(errno.EBADF, "the socket is closed")))
        self._bound.close()
