"""What the benchmarks of congestion controls count: common windows, amounts, shares."""

from __future__ import annotations

import json

import pytest

from xiatb.experiments.bench.fairness import jain
from xiatb.experiments.bench.flowapp import Amount, FlowMeter
from xiatb.experiments.bench.flows import ROOM
from xiatb.experiments.bench.stream import room


def test_flows_are_counted_in_one_window_that_begins_when_all_have_begun() -> None:
    meter = FlowMeter(2, warm=1.0, seconds=2.0)
    meter.add(0, 1000, 10.0)
    meter.add(0, 1000, 11.5)
    meter.add(1, 1000, 12.0)
    meter.add(1, 500, 12.9)
    for at in (13.0, 14.0, 14.9):
        meter.add(0, 250, at)
    meter.add(1, 250, 14.0)
    meter.add(1, 9999, 15.0)
    told = json.loads(meter.report())
    assert told == {"rates": [3000.0, 1000.0], "last": 15.0}


def test_flows_that_end_before_the_window_have_no_rate() -> None:
    meter = FlowMeter(1, warm=1.0, seconds=2.0)
    meter.add(0, 1000, 10.0)
    assert json.loads(meter.report()) == {"rates": [0.0], "last": 10.0}


def test_amounts_end() -> None:
    amount = Amount("bytes:150")
    assert [amount.next(100) for _ in range(4)] == [100, 50, 0, 0]
    assert Amount("seconds:60").next(100) == 100
    assert Amount("seconds:0").next(100) == 0


@pytest.mark.parametrize(("shares", "index"), [([5.0, 5.0], 1.0), ([10.0, 0.0], 0.5), ([0.0], 0.0)])
def test_jains_index(shares: list[float], index: float) -> None:
    assert jain(shares) == index


def test_the_room_of_each_protocol_is_that_of_its_headers() -> None:
    nodes = 6 * 28
    assert pytest.approx(room(100, 1500, nodes), abs=0.05) == ROOM["xia"]
    assert pytest.approx(100 * (1500 - 52) / 1514, abs=0.05) == ROOM["tcp"]
