"""A SID bound on the node, with its transport endpoint at work in the running event loop.

What all sockets of the asyncio API stand on: it joins stack, driver and endpoint, and hands events
to the streams and datagrams they are about.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from typing import Protocol

from xiatb.errors import XiatbError
from xiatb.identity.keys import KeyPair
from xiatb.node.driver import EndpointDriver
from xiatb.node.locator import NodeLocator
from xiatb.node.stack import Stack
from xiatb.transport.config import DatagramConfig, StreamConfig
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.events import Event
from xiatb.transport.stream import Stream
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID

_DEFAULT_MTU = StreamConfig().mtu


class StreamUser(Protocol):
    """Takes the events of one stream."""

    def handle(self, event: Event) -> None:
        """An event of the stream."""

    def settle(self) -> None:
        """The stream is in `closing` and something happened: look whether it has got there."""

    def fail(self, error: XiatbError) -> None:
        """The node is gone; the stream is of no more use."""


def fitted(config: StreamConfig | None, mtu: int, rendezvous: DAG | None = None) -> StreamConfig:
    """A copy of `config` for a link of `mtu` bytes, and the lab's rendezvous service unless it names one.

    An MTU that was left at its default means the link's; a smaller one that was chosen stays.
    """
    chosen = config or StreamConfig()
    wanted = mtu if chosen.mtu == _DEFAULT_MTU else min(chosen.mtu, mtu)
    return dataclasses.replace(chosen, mtu=wanted, rendezvous=chosen.rendezvous or rendezvous)


class BoundEndpoint:
    """One bound SID. Made by `open`; lives until `close` or the end of the node process."""

    def __init__(
        self,
        stack: Stack,
        sid: XID,
        key: KeyPair | None,
        locator: NodeLocator,
        config: StreamConfig | None,
        datagram_config: DatagramConfig | None,
    ) -> None:
        """Use `open`. Raises DeviceError when the packet socket cannot be opened."""
        self.sid = sid
        self.config = fitted(config, locator.mtu, locator.rendezvous)
        local = locator.service(sid)
        self.endpoint = Endpoint(key, sid, local, self.config, random.SystemRandom(), datagram_config)
        self.users: dict[Stream, StreamUser] = {}
        self.closing: set[StreamUser] = set()
        self.on_accept: Callable[[Stream], None] | None = None
        self.on_datagrams: Callable[[], None] | None = None
        self.on_lost: Callable[[XiatbError], None] | None = None
        self.driver = EndpointDriver(stack, self.endpoint, sid, locator, self._activity, self._lost)
        self.endpoint.wake = self.driver.poke

    @classmethod
    async def open(
        cls,
        stack: Stack,
        key: KeyPair | None,
        config: StreamConfig | None = None,
        datagram_config: DatagramConfig | None = None,
    ) -> BoundEndpoint:
        """Binds the SID of `key` (None: an ephemeral one) on the node and opens its socket.

        Waits for the node to have a locator. Raises ControlError (EADDRINUSE, ENETDOWN, ...), DeviceError.
        """
        await stack.locator()
        sid = await stack.bind(key)
        try:
            locator = await stack.locator()
            if datagram_config is not None:
                datagram_config = dataclasses.replace(
                    datagram_config,
                    mtu=locator.mtu,
                    rendezvous=datagram_config.rendezvous or locator.rendezvous,
                )
            return cls(stack, sid, key, locator, config, datagram_config)
        except XiatbError:
            stack.release(sid)
            raise

    def _activity(self) -> None:
        endpoint = self.endpoint
        if endpoint.acceptable and self.on_accept is not None:
            while (stream := endpoint.accept()) is not None:
                self.on_accept(stream)
        for stream, event in endpoint.events():
            user = self.users.get(stream)
            if user is not None:
                user.handle(event)
        if self.on_datagrams is not None:
            self.on_datagrams()
        for user in list(self.closing):
            user.settle()

    def _lost(self, error: XiatbError) -> None:
        users, self.users = self.users, {}
        self.closing.clear()
        for user in users.values():
            user.fail(error)
        if self.on_lost is not None:
            self.on_lost(error)

    def connect(self, remote: DAG) -> Stream:
        """Begins a stream to a service. Raises InUseError."""
        return self.endpoint.connect(remote, time.monotonic())

    def close(self) -> None:
        """Closes the socket and unbinds the SID at once."""
        self.users.clear()
        self.closing.clear()
        self.driver.close()
