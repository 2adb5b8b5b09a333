"""What a migration would take: time, downtime and bytes, from what can be measured beforehand.

The model is the usual series of passes (Akoush MASCOTS'10, Liu HPDC'11; reference/migration.md 7.3): pass i
sends what was dirtied during pass i-1. How much that is follows two measurements of the guest's memory
(`workload`): a guest that writes at rate D into a working set of W bytes has W (1 - exp(-D t / W)) bytes
dirty after t seconds. The passes are simulated against the real `Controller`, so that what is predicted
follows the limits that the user set.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from xiatb.migration.controller import Bounds, Controller, Sample

PAGE: Final = 4096
RECORD: Final = 4104
"""Bytes of a whole page in QEMU's stream, in most cases; a zero page takes `ZERO_RECORD`."""
ZERO_RECORD: Final = 9
MAX_PASSES: Final = 200
MIN_PASS_S: Final = 0.02
"""QEMU looks at what remains at least so often."""


@dataclass(frozen=True)
class Workload:
    """The guest's memory. ram, nonzero: bytes; dirty_rate: bytes a second at first; working_set: bytes that
    it keeps writing to; delta: size of a changed page as a difference over that of the whole page."""

    ram: int
    nonzero: int
    dirty_rate: float = 0.0
    working_set: float = 0.0
    delta: float = 1.0

    def dirtied(self, seconds: float) -> float:
        """Bytes written to within so many seconds, each page once."""
        if self.working_set <= 0 or self.dirty_rate <= 0:
            return 0.0
        return self.working_set * -math.expm1(-self.dirty_rate * seconds / self.working_set)


@dataclass(frozen=True)
class Path:
    """The way between the hosts. goodput: bytes a second of payload; round_trip: seconds; backlog: bytes that
    the relays hold when the guest stops."""

    goodput: float
    round_trip: float = 0.0
    backlog: int = 0


@dataclass(frozen=True)
class Costs:
    """What this pair of hosts adds: seconds before the first byte, seconds of the guest's stop that are not
    data, seconds after it runs again, bytes of device state. The defaults are of the development machine;
    `calibrated` fits them to migrations that have been."""

    prepare_s: float = 1.2
    stop_s: float = 0.055
    finish_s: float = 1.6
    device_bytes: int = 130_000

    def calibrated(self, predicted: Prediction, total_s: float, downtime_s: float) -> Costs:
        """Half-way to the constants that would have made this prediction right (a single run is noisy)."""
        stop = self.stop_s + (downtime_s - predicted.downtime_s) / 2
        finish = self.finish_s + (total_s - predicted.total_s) / 2
        return replace(self, stop_s=max(0.0, stop), finish_s=max(0.0, finish))


@dataclass(frozen=True)
class Prediction:
    """Seconds and bytes. converges: False when pre-copy would not end within the user's limits."""

    total_s: float
    downtime_s: float
    storage_s: float
    memory_bytes: int
    storage_bytes: int
    passes: int
    converges: bool
    switches: bool
    decisions: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; keys are stable."""
        return asdict(self)


def predict(
    workload: Workload, path: Path, bounds: Bounds, *, storage: int = 0, costs: Costs | None = None,
    postcopy_at_once: bool = False,
) -> Prediction:  # fmt: skip
    """Simulate the migration; `storage` is bytes of disk to copy first.

    Raises ValueError when the goodput isn't positive.
    """
    if path.goodput <= 0:
        raise ValueError("no goodput, no prediction")
    costs = costs or Costs()
    rate = path.goodput if not bounds.bandwidth else min(path.goodput, bounds.bandwidth)
    storage_s = storage / rate
    first = workload.nonzero / PAGE * RECORD + (workload.ram - workload.nonzero) / PAGE * ZERO_RECORD
    if postcopy_at_once:
        bounds = replace(bounds, postcopy=True, after_passes=1)
    run = _passes(workload, path, bounds, first, rate, costs.prepare_s + storage_s)
    stop_bytes = costs.device_bytes + path.backlog + (0.0 if run.switched else run.left)
    downtime = stop_bytes / run.rate + 1.5 * path.round_trip + costs.stop_s
    after = run.left / run.rate if run.switched else 0.0
    sent = run.sent + run.left + costs.device_bytes
    return Prediction(
        total_s=costs.prepare_s + storage_s + run.seconds + downtime + after + costs.finish_s,
        downtime_s=downtime,
        storage_s=storage_s,
        memory_bytes=int(sent),
        storage_bytes=storage,
        passes=run.count,
        converges=run.converges,
        switches=run.switched,
        decisions=tuple(run.decisions),
    )


@dataclass
class _Run:
    """Passes simulated so far; `left` bytes are to be sent with the guest stopped (or after the switch)."""

    rate: float
    seconds: float = 0.0
    sent: float = 0.0
    left: float = 0.0
    count: int = 0
    converges: bool = True
    switched: bool = False
    decisions: list[dict[str, Any]] | tuple[()] = ()


def _passes(
    workload: Workload, path: Path, bounds: Bounds, first: float, rate: float, before: float
) -> _Run:  # fmt: skip
    """`before`: seconds from the beginning, which a deadline counts from, to the first byte of memory."""
    controller = Controller(bounds)
    run = _Run(rate)
    size, throttle = first, 0.0
    while run.count < MAX_PASSES:
        run.count += 1
        sample = Sample(
            before + run.seconds, run.count, int(size), workload.dirty_rate * (1 - throttle), run.rate,
            path.round_trip, path.backlog,
        )  # fmt: skip
        for decision in controller.observe(sample):
            if decision.kind == "bandwidth":
                run.rate = min(path.goodput, decision.value)
            elif decision.kind == "throttle":
                throttle = decision.value / 100
            elif decision.kind == "postcopy":
                run.switched = True
        run.left = size
        if run.switched or (run.count > 1 and size <= run.rate * controller.limit_ms / 1000):
            break
        took = max(size / run.rate, MIN_PASS_S)
        run.seconds += took
        run.sent += size
        slowed = replace(workload, dirty_rate=workload.dirty_rate * (1 - throttle))
        size = slowed.dirtied(took) / PAGE * RECORD * workload.delta
    else:
        run.converges = False
    run.decisions = [one.as_dict() for one in controller.decisions]
    return run
