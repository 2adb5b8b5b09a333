"""What the user wants of a migration while it runs: other limits, and what is to happen when it takes too
long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from xiatb.migration.controller import Controller
from xiatb.migration.options import MAX_DOWNTIME_MS, Options

MIB = 1 << 20


class Hypervisor(Protocol):
    """What of the driver is needed here."""

    async def set_downtime_limit(self, name: str, milliseconds: int) -> None:
        """See Driver."""

    async def set_bandwidth(self, name: str, mib: int) -> None:
        """See Driver."""


class Tuning:
    """One migration's. `cancel` and `switch` stop it and go over to post-copy; `note` gets an entry, like a
    decision of the controller, for everything that is done here."""

    def __init__(
        self,
        options: Options,
        driver: Hypervisor,
        guest: str,
        controller: Controller,
        cancel: Callable[[str], object],
        switch: Callable[[], object],
        note: Callable[[dict[str, Any]], None],
    ) -> None:
        self.forced = False
        """The guest is to be stopped as soon as QEMU looks; the controller has no say any more."""
        self._options = options
        self._driver = driver
        self._guest = guest
        self._controller = controller
        self._cancel, self._switch, self._note = cancel, switch, note
        self._began = 0.0
        self._acted = False

    async def watch(self, copying_memory: bool, now: float) -> None:
        """Look at the clock (monotonic seconds) ten times a second until the guest is stopped. Only an abort
        may come before memory is copied; anything else waits for that."""
        self._began = self._began or now
        options = self._options
        if self._acted or not options.timeout or now - self._began < options.timeout:
            return
        why = f"not done after {options.timeout:g} s"
        if options.timeout_action == "abort":
            self._acted = True
            self._cancel(f"{why}, as --timeout-action abort says")
        elif copying_memory and options.timeout_action == "postcopy":
            self._acted = True
            self._tell("postcopy", 0, why)
            self._switch()
        elif copying_memory:
            self._acted = self.forced = True
            self._tell("downtime", MAX_DOWNTIME_MS, f"{why}: stop the guest and finish")
            await self._driver.set_downtime_limit(self._guest, MAX_DOWNTIME_MS)

    async def change(self, wanted: dict[str, int]) -> dict[str, int]:
        """Other limits (options.TUNABLE) from now on, also for the controller; gives them back. Raises
        DriverError."""
        controller = self._controller
        if "downtime" in wanted:
            limit = wanted["downtime"]
            controller.bounds = replace(controller.bounds, downtime_ms=limit)
            self._tell("downtime", limit, "asked for", by="user")
            if controller.limit_ms:  # else the controller begins with less, once memory is being copied
                controller.limit_ms = limit
                await self._driver.set_downtime_limit(self._guest, limit)
        if "bandwidth" in wanted:
            cap = wanted["bandwidth"]
            most = controller.bounds.bandwidth_most
            controller.bounds = replace(
                controller.bounds, bandwidth=cap * MIB, bandwidth_most=max(most, cap * MIB) if most else 0
            )
            controller.bandwidth = cap * MIB
            self._tell("bandwidth", cap * MIB, "asked for", by="user")
            await self._driver.set_bandwidth(self._guest, cap)
        return wanted

    def _tell(self, kind: str, value: int, reason: str, by: str = "time limit") -> None:
        now = time.monotonic_ns()
        since = now / 1e6 - self._began * 1000 if self._began else 0.0
        told = {"t_ms": round(since, 1), "kind": kind, "value": value, "reason": reason, "by": by}
        self._note({**told, "t_ns": now})
