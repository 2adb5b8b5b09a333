"""The controller in a running migration: samples from statistics, decisions on the hypervisor."""

from __future__ import annotations

import asyncio
from typing import Any

from xiatb.migration.controller import FIRST_LIMIT_MS, Bounds, words
from xiatb.migration.driver import DriverError
from xiatb.migration.options import parse
from xiatb.migration.steering import MIB, Steering, bounds_of


class Recorder:
    """A hypervisor that writes down what it is asked for; it has no throttle."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def set_downtime_limit(self, name: str, milliseconds: int) -> None:
        self.asked.append(("downtime", milliseconds))

    async def set_bandwidth(self, name: str, mib: int) -> None:
        self.asked.append(("bandwidth", mib))

    async def set_throttle(self, name: str, percent: int) -> None:
        raise DriverError("no such parameter")


def run(bounds: Bounds, remaining: int = 50 * MIB) -> tuple[Recorder, list[dict[str, Any]], Steering]:
    """Passes that never get smaller, at 10 MiB/s."""
    hypervisor, events = Recorder(), []
    steering = Steering(bounds, hypervisor, "vm1", lambda: hypervisor.asked.append(("postcopy", 0)),
                        events.append)  # fmt: skip

    async def scenario() -> None:
        for second in range(1, 16):
            stats = {"memory_remaining": remaining, "memory_dirty_rate": 2300, "memory_page_size": 4096}
            await steering.observe(stats, second, second * 10 * MIB, 0, 0.02, 100.0 + second)

    asyncio.run(scenario())
    return hypervisor, events, steering


def test_decisions_are_carried_out_and_told_with_their_reasons() -> None:
    hypervisor, events, steering = run(Bounds(bandwidth=10 * MIB, bandwidth_most=20 * MIB, postcopy=True))
    assert hypervisor.asked == [("downtime", FIRST_LIMIT_MS), ("bandwidth", 20), ("postcopy", 0)]
    assert [event["kind"] for event in events] == ["downtime", "bandwidth", "postcopy"]
    assert all(event["event"] == "decision" and event["reason"] and event["t_ns"] for event in events)
    assert [{**one, "event": "decision"} for one in steering.done] == events
    assert "the guest dirties 75.4 Mbit/s of 83.9 Mbit/s" in words(events[1])
    assert words(events[1]).startswith("bandwidth cap 20 MiB/s")


def test_a_hypervisor_that_refuses_is_told_of_and_the_transfer_goes_on() -> None:
    _, events, _ = run(Bounds(throttle=20))
    failed = [event for event in events if event["kind"] == "throttle"]
    assert [one["failed"] for one in failed] == ["no such parameter"]
    assert words(failed[0]).startswith("the guest's processors throttled to 80 %")


def test_a_limit_that_should_do_and_does_not_is_raised_to_the_users() -> None:
    hypervisor, _, _ = run(Bounds(downtime_ms=150), remaining=MIB // 4)
    limits = [value for kind, value in hypervisor.asked if kind == "downtime"]
    assert limits == [FIRST_LIMIT_MS, 90, 120], "one and a half round trips of 20 ms are kept"


def test_a_goodput_of_an_instant_is_not_judged_by() -> None:
    hypervisor = Recorder()
    steering = Steering(Bounds(postcopy=True, deadline_s=5.0), hypervisor, "vm1",
                        lambda: hypervisor.asked.append(("postcopy", 0)), lambda event: None)  # fmt: skip
    steering.begin(90.0)  # the disk took eight seconds: the deadline is over

    async def scenario() -> None:
        for tenth in range(12):
            if tenth == 8:
                assert [kind for kind, _ in hypervisor.asked] == ["downtime"]
            stats = {"memory_remaining": MIB, "memory_page_size": 4096}
            await steering.observe(stats, 1, tenth * MIB, 0, 0.02, 98.0 + tenth / 10)

    asyncio.run(scenario())
    assert [kind for kind, _ in hypervisor.asked] == ["downtime", "postcopy"]


def test_the_users_options_are_the_bounds() -> None:
    assert bounds_of(parse({})) == Bounds()
    wanted = {"mode": "hybrid", "after_passes": 3, "bandwidth": 5, "bandwidth_most": 9, "downtime": 80}
    assert bounds_of(parse(wanted)) == Bounds(80, 0, 5 * MIB, 9 * MIB, True, 3)
    assert bounds_of(parse({"mode": "postcopy"})).after_passes == 1
