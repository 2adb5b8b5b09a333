"""What ARPQuerier and XARPQuerier share: packets that wait until the address of a neighbour is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from xiatb.click.context import Context, Timer, port_of
from xiatb.click.element import Element, Receiver
from xiatb.click.packet import Packet

PER_NEIGHBOUR = 64
"""Packets that wait for one neighbour; the oldest go first."""


class _Sought:
    """One neighbour: the packets that wait for it, and the requests sent."""

    __slots__ = ("packets", "timer", "tries")

    def __init__(self) -> None:
        self.packets: deque[Packet] = deque()
        self.tries = 0
        self.timer: Timer | None = None


class WaitingList:
    """The neighbours whose addresses are sought, by key (any bytes that name one); `packets` wait in all.

    A neighbour is asked for at once when the first packet comes for it, then every `retry` seconds; when
    `tries` requests have found nothing its packets fail.
    """

    __slots__ = ("_ask", "_fail", "_retry", "_sought", "_timer", "_tries", "packets")

    def __init__(
        self,
        timer: Callable[[float, Callable[[], None]], Timer],
        retry: float,
        tries: int,
        ask: Callable[[bytes], None],
        fail: Callable[[Packet], None],
    ) -> None:
        """timer: calls a function in so many seconds; ask: sends one request for a key; fail: takes each
        packet whose neighbour stayed silent, oldest first."""
        self._timer = timer
        self._retry = retry
        self._tries = tries
        self._ask = ask
        self._fail = fail
        self._sought: dict[bytes, _Sought] = {}
        self.packets = 0

    def __len__(self) -> int:
        """How many neighbours are sought."""
        return len(self._sought)

    def __contains__(self, key: bytes) -> bool:
        """Whether that neighbour is sought."""
        return key in self._sought

    def add(self, key: bytes, p: Packet) -> int:
        """Keep a packet; returns how many, 0 or 1, had to go for it."""
        sought = self._sought.get(key)
        first = sought is None
        if sought is None:
            sought = self._sought[key] = _Sought()
        sought.packets.append(p)
        self.packets += 1
        if first:
            self._seek(key)
        elif len(sought.packets) > PER_NEIGHBOUR:
            sought.packets.popleft()
            self.packets -= 1
            return 1
        return 0

    def take(self, key: bytes) -> deque[Packet]:
        """The packets for a neighbour that is found (or given up), oldest first; it is sought no more."""
        sought = self._sought.pop(key, None)
        if sought is None:
            return deque()
        if sought.timer is not None:
            sought.timer.cancel()
        self.packets -= len(sought.packets)
        return sought.packets

    def close(self) -> None:
        """Stop the timers."""
        for sought in self._sought.values():
            if sought.timer is not None:
                sought.timer.cancel()

    def _seek(self, key: bytes) -> None:
        """Send a request, or give up after enough of them."""
        sought = self._sought.get(key)
        if sought is None:
            return
        if sought.tries >= self._tries:
            for p in self.take(key):
                self._fail(p)
            return
        sought.tries += 1
        sought.timer = self._timer(self._retry, lambda: self._seek(key))
        self._ask(key)


class Querier(Element):
    """Addresses the packets of input 0 to their neighbours; frames at input 1 teach it addresses. Requests,
    too, leave by output 0. Packets whose neighbour is silent leave by output 1 if that is connected."""

    __slots__ = ("devname", "failed", "mac", "retry", "tries", "waiting")
    PORTS = "2/1-2"
    PROCESSING = "push"
    devname: str
    retry: float
    tries: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the arguments."""
        super().configure(args)
        self.waiting = WaitingList(self.timer, self.retry, self.tries, self._ask, self._fail)
        self.mac = bytes(6)
        self.failed: Receiver | None = None

    def initialize(self, ctx: Context) -> None:
        """Learn the port's address."""
        self.mac = port_of(ctx, self.devname).mac
        self.failed = self.optional_output(1)

    def cleanup(self) -> None:
        """Stop the timers."""
        self.waiting.close()

    def receiver(self, port: int) -> Receiver:
        """One function an input."""
        return self.receive if port == 0 else self._learn

    def push(self, port: int, p: Packet) -> None:
        """Either input."""
        self.receiver(port)(p)

    def _learn(self, p: Packet) -> None:
        """A frame came in."""
        raise NotImplementedError

    def _ask(self, key: bytes) -> None:
        """Send one request for a neighbour."""
        raise NotImplementedError

    def _fail(self, p: Packet) -> None:
        """A packet cannot be addressed."""
        raise NotImplementedError
