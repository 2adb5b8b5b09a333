"""What a router graph needs from the world: clock, timers, ports, host. All I/O comes in through this.

The node process gives the real thing; `ManualContext` is a world for tests, with a clock that
only moves when told to.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from xiatb.click.errors import ConfigError
from xiatb.click.packet import Packet
from xiatb.wire.dag import DAG

BurstReceiver = Callable[[list[bytearray]], None]


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Forget the call; harmless when it has already happened."""


class Device(Protocol):
    """A port of the node that carries Ethernet frames."""

    name: str
    mac: bytes
    mtu: int

    def send(self, data: bytearray) -> bool:
        """Send one whole frame; False when the system dropped it (ENOBUFS, link down)."""

    def send_burst(self, frames: Sequence[bytearray]) -> list[int]:
        """Send whole frames in order; gives the numbers, from 0, of those that the system dropped."""

    def set_receiver(self, receiver: BurstReceiver) -> None:
        """Give received frames to `receiver`, those that wait together at once; it owns the bytearrays."""


class Context(Protocol):
    """The world of a router graph."""

    rng: random.Random

    @property
    def hid(self) -> bytes:
        """Key (24 octets) of the node's own HID."""

    @property
    def dag(self) -> DAG | None:
        """Present locator of the node, source of its XCMP messages; None before it joined."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_at(self, deadline: float, fn: Callable[[], None]) -> Timer:
        """Call `fn` once at `deadline` (on the clock of `now`), or as soon as possible if that is past."""

    def device(self, name: str) -> Device | None:
        """The port of that name."""

    def to_host(self, channel: str, packet: Packet) -> None:
        """A packet leaves the graph for the node's own software."""

    def log(self, level: str, msg: str) -> None:
        """A line for the node's log."""


def port_of(ctx: Context, name: str) -> Device:
    """The port that an element's configuration names; raises ConfigError when the node has none so called."""
    device = ctx.device(name)
    if device is None:
        raise ConfigError(f"the node has no port '{name}'")
    return device


class ManualTimer:
    """A timer of `ManualContext`."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[[], None]) -> None:
        self.fn: Callable[[], None] | None = fn

    def cancel(self) -> None:
        """Forget the call."""
        self.fn = None


class ManualDevice:
    """A port that keeps what is sent and receives what the test gives it."""

    def __init__(self, name: str, mac: bytes, mtu: int = 1500) -> None:
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.sent: list[bytes] = []
        self.full = False
        self._receiver: BurstReceiver | None = None

    def send(self, data: bytearray) -> bool:
        """Keep the frame, unless the port is set to be full."""
        if self.full:
            return False
        self.sent.append(bytes(data))
        return True

    def send_burst(self, frames: Sequence[bytearray]) -> list[int]:
        """Send one after the other."""
        return [number for number, data in enumerate(frames) if not self.send(data)]

    def set_receiver(self, receiver: BurstReceiver) -> None:
        """Frames given to `deliver` go to `receiver` from now on."""
        self._receiver = receiver

    def deliver(self, *frames: bytes) -> None:
        """Frames arrive, all of them before the first is looked at."""
        if self._receiver is not None:
            self._receiver(list(map(bytearray, frames)))


class ManualContext:
    """A world for tests: manual clock, devices that remember, host channels as lists."""

    def __init__(self, hid: bytes = b"\0\0\0\x11" + bytes(20), dag: DAG | None = None, seed: int = 1) -> None:
        self.hid = hid
        self.dag = dag
        self.rng = random.Random(seed)
        self.devices: dict[str, ManualDevice] = {}
        self.host: list[tuple[str, Packet]] = []
        self.logged: list[tuple[str, str]] = []
        self._now = 0.0
        self._heap: list[tuple[float, int, ManualTimer]] = []
        self._sequence = 0

    def now(self) -> float:
        """The manual clock."""
        return self._now

    def call_at(self, deadline: float, fn: Callable[[], None]) -> ManualTimer:
        """Call `fn` when the clock is moved to or past `deadline`."""
        timer = ManualTimer(fn)
        self._sequence += 1
        heapq.heappush(self._heap, (deadline, self._sequence, timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock on, calling every timer that falls due, each at its own time."""
        end = self._now + seconds
        while self._heap and self._heap[0][0] <= end + 1e-12:
            deadline, _, timer = heapq.heappop(self._heap)
            self._now = max(self._now, deadline)
            if timer.fn is not None:
                fn, timer.fn = timer.fn, None
                fn()
        self._now = end

    def pending(self) -> int:
        """How many timers are waiting."""
        return sum(1 for _, _, timer in self._heap if timer.fn is not None)

    def add_device(self, name: str, mac: bytes | None = None, mtu: int = 1500) -> ManualDevice:
        """Make a port."""
        address = mac if mac is not None else bytes([2, 0, 0, 0, 0, len(self.devices) + 1])
        self.devices[name] = ManualDevice(name, address, mtu)
        return self.devices[name]

    def device(self, name: str) -> ManualDevice | None:
        """The port of that name."""
        return self.devices.get(name)

    def to_host(self, channel: str, packet: Packet) -> None:
        """Remember a packet for the host."""
        self.host.append((channel, packet))

    def log(self, level: str, msg: str) -> None:
        """Remember a log line."""
        self.logged.append((level, msg))

    def packets(self, channel: str) -> list[Packet]:
        """What went to the host on `channel`."""
        return [packet for name, packet in self.host if name == channel]
