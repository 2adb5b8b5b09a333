"""The world of a node's Click graph: the event loop's clock and timers, ports, host channels, the log."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping

from xiatb.click.context import Device, Timer
from xiatb.click.packet import Packet
from xiatb.node.port import Port
from xiatb.wire.dag import DAG

log = logging.getLogger("xiatb.node")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def write_log(level: str, message: str) -> None:
    """A line for the node's log; `level` is debug, info, warning or error."""
    log.log(_LEVELS.get(level, logging.INFO), "%s", message)


class NodeContext:
    """Fulfils the `Context` protocol of xiatb.click.context on an asyncio event loop.

    hid: 24-byte key of the node; dag: its locator, set by the node when it changes.
    """

    def __init__(
        self,
        hid: bytes,
        rng: random.Random,
        ports: Mapping[str, Port],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.rng = rng
        self.hid = hid
        self.dag: DAG | None = None
        self.strays: dict[str, int] = {}
        self._ports = ports
        self._loop = loop
        self._channels: dict[str, Callable[[Packet], None]] = {}

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def call_at(self, deadline: float, fn: Callable[[], None]) -> Timer:
        """Calls `fn` once at `deadline`; asyncio's clock is the monotonic one."""
        return self._loop.call_at(deadline, fn)

    def device(self, name: str) -> Device | None:
        """The port of that name."""
        return self._ports.get(name)

    def serve(self, channel: str, fn: Callable[[Packet], None]) -> None:
        """Packets that leave the graph on `channel` go to `fn`."""
        self._channels[channel] = fn

    def to_host(self, channel: str, packet: Packet) -> None:
        """A packet leaves the graph for the node's own software; without a taker it is counted."""
        fn = self._channels.get(channel)
        if fn is None:
            self.strays[channel] = self.strays.get(channel, 0) + 1
        else:
            fn(packet)

    def log(self, level: str, msg: str) -> None:
        """A line for the node's log."""
        write_log(level, msg)
