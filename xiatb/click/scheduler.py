"""Runs what packets leave behind: pull drains that a queue has woken, timers that have come due.

Work is run to completion: a packet that comes in by a device is pushed through the graph, then the
tasks that it woke (a ToDevice behind a queue) run, before the device's callback returns. So a packet
needs no second turn of the event loop, and nothing runs when there is nothing to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from xiatb.click.context import Context
from xiatb.click.packet import Packet

Task = Callable[[], None]

BUDGET = 512
"""Tasks run in one go; what is left waits for the event loop, so that timers and other sources get on."""


class FlowCache(Protocol):
    """An element that remembers what the graph does to flows."""

    def forget(self) -> None:
        """The graph may do something else from now on."""

    def settle(self) -> None:
        """Bring the counters of the elements that were passed by up to date."""


class Scheduler:
    """The task list of one router. Elements write to others' handlers by `write_handler(path, value)`.

    senders: for every ToDevice the frames that it has taken and the function that sends them. During a burst
    of received frames they are kept, so that each port sends what came of it by one system call.
    """

    __slots__ = ("armed", "bursting", "ctx", "flow_caches", "inside", "ready", "senders", "write_handler")

    def __init__(self, ctx: Context, write_handler: Callable[[str, str], None]) -> None:
        self.write_handler = write_handler
        self.ctx = ctx
        self.ready: deque[Task] = deque()
        self.inside = False
        self.armed = False
        self.bursting = False
        self.senders: list[tuple[list[bytearray], Task]] = []
        self.flow_caches: list[FlowCache] = []

    def forget_flows(self) -> None:
        """A table has changed: what was known of flows may be wrong."""
        for cache in self.flow_caches:
            cache.forget()

    def settle(self) -> None:
        """Bring the counters of all elements up to date."""
        for cache in self.flow_caches:
            cache.settle()

    def burst(self, fn: Callable[[list[bytearray]], None], frames: list[bytearray]) -> None:
        """Give received frames to `fn`, then send what came of them."""
        if self.bursting:
            fn(frames)
            return
        self.bursting = True
        try:
            fn(frames)
        finally:
            self.bursting = False
            for kept, send in self.senders:
                if kept:
                    send()

    def wake(self, task: Task) -> None:
        """Run `task` once the packet at hand has gone its way; soon, when none is at hand."""
        self.ready.append(task)
        if not self.inside:
            self._arm()

    def enter(self, fn: Callable[[Packet], None], p: Packet) -> None:
        """Push a packet into the graph from outside, then run the tasks that it woke."""
        if self.inside:
            fn(p)
            return
        self.inside = True
        try:
            fn(p)
        finally:
            self.inside = False
        if self.ready:
            self.run()

    def enter_task(self, fn: Task) -> None:
        """Run a timer's function, then the tasks that it woke."""
        if self.inside:
            fn()
            return
        self.inside = True
        try:
            fn()
        finally:
            self.inside = False
        if self.ready:
            self.run()

    def run(self) -> None:
        """Run the tasks that are ready, at most BUDGET of them."""
        ready = self.ready
        self.inside = True
        try:
            for _ in range(BUDGET):
                if not ready:
                    return
                ready.popleft()()
        finally:
            self.inside = False
        if ready:
            self._arm()

    def _arm(self) -> None:
        if not self.armed:
            self.armed = True
            self.ctx.call_at(self.ctx.now(), self._on_timer)

    def _on_timer(self) -> None:
        self.armed = False
        if not self.inside:
            self.run()
