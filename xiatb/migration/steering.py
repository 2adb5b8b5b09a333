"""The controller in a running migration: samples out of libvirt's statistics and the relays' counters, and
its decisions carried out on the hypervisor, logged and told to the user."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from xiatb.migration.controller import Bounds, Controller, Decision, Sample, words
from xiatb.migration.diskcap import DiskCap
from xiatb.migration.driver import DriverError
from xiatb.migration.options import Options

log = logging.getLogger("xiatb.migration")
WINDOW: Final = 10
"""Samples that the goodput is measured over: a second."""
WARM_S: Final = 0.8
"""A goodput that was measured for less is not judged by: a transfer begins slowly."""
MIB: Final = 1 << 20


class Hypervisor(Protocol):
    """What of the driver is needed here."""

    async def set_downtime_limit(self, name: str, milliseconds: int) -> None:
        """See Driver."""

    async def set_bandwidth(self, name: str, mib: int) -> None:
        """See Driver."""

    async def set_throttle(self, name: str, percent: int) -> None:
        """See Driver."""


class Steering:
    """Steers one guest's migration within `bounds`. `switch` asks for post-copy; `tell` gets an event for
    each decision; `name` is for the log."""

    def __init__(
        self,
        bounds: Bounds,
        driver: Hypervisor,
        guest: str,
        switch: Callable[[], object],
        tell: Callable[[dict[str, Any]], None],
        name: str = "",
    ) -> None:
        self.controller = Controller(bounds)
        self.disk_cap = DiskCap(lambda: self.controller.bandwidth)
        """holds the channels of disks back"""
        self.done: list[dict[str, Any]] = []
        """Decisions carried out, as in the result: t_ns is monotonic."""
        self.bounds = bounds
        self._driver = driver
        self._guest = guest
        self._switch = switch
        self._tell = tell
        self._name = name
        self._began = 0.0
        self._moved: deque[tuple[float, int]] = deque(maxlen=WINDOW)

    def begin(self, now: float) -> None:
        """The transfer has begun, its storage first: deadlines count from here. now: monotonic seconds."""
        self._began = self._began or now

    def cap(self) -> int:
        """The user's cap of the bandwidth in MiB/s, as it is now; 0: none."""
        return self.controller.bounds.bandwidth // MIB

    async def observe(
        self, stats: dict[str, Any], passes: int, moved: int, backlog: int, round_trip: float, now: float
    ) -> None:
        """Once in a tenth of a second while memory is copied, and carry out what the controller decides.

        stats: libvirt's job statistics; passes: passes begun; moved: bytes of memory sent so far; backlog:
        bytes; round_trip, now: seconds, the latter monotonic.
        """
        self.begin(now)
        self._moved.append((now, moved))
        then, before = self._moved[0]
        page = int(stats.get("memory_page_size", 4096))
        sample = Sample(
            now=now - self._began,
            passes=max(passes, int(stats.get("memory_iteration", 0)), 1),
            remaining=int(stats.get("memory_remaining", 0)),
            dirty_rate=float(int(stats.get("memory_dirty_rate", 0)) * page),
            goodput=(moved - before) / (now - then) if now - then >= WARM_S else 0.0,
            round_trip=round_trip,
            backlog=backlog,
        )
        for decision in self.controller.observe(sample):
            await self._carry_out(decision)

    async def _carry_out(self, decision: Decision) -> None:
        entry = {**decision.as_dict(), "t_ns": time.monotonic_ns()}
        try:
            if decision.kind == "downtime":
                await self._driver.set_downtime_limit(self._guest, decision.value)
            elif decision.kind == "bandwidth":
                await self._driver.set_bandwidth(self._guest, max(1, decision.value // MIB))
            elif decision.kind == "throttle":
                await self._driver.set_throttle(self._guest, decision.value)
            else:
                self._switch()
        except DriverError as error:
            entry["failed"] = error.message
            log.warning("%s: %s: %s", self._name, words(entry), error.message)
        else:
            log.info("%s: %s", self._name, words(entry))
        self.done.append(entry)
        self._tell({"event": "decision", **entry})


def bounds_of(options: Options) -> Bounds:
    """What the user's options allow the controller."""
    return Bounds(
        downtime_ms=options.downtime,
        throttle=options.throttle,
        bandwidth=options.bandwidth * MIB,
        bandwidth_most=options.bandwidth_most * MIB,
        postcopy=options.mode != "precopy",
        after_passes=1 if options.mode == "postcopy" else options.after_passes,
        deadline_s=options.deadline,
    )
