"""Plans: the probe of a path, what a pair of hosts remembers, the examination at the destination."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.migration import simtime
from tests.migration.samples import CAPABILITIES, JOB, REQUEST
from tests.migration.test_relay import wires
from xiatb.errors import XiatbError
from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration import probe
from xiatb.migration.calibration import Memory, PairBook
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.options import parse
from xiatb.migration.planning import channels, foresee, storage_bytes
from xiatb.migration.predictor import Costs, Workload

WORKLOAD = Workload(ram=64 << 20, nonzero=32 << 20, dirty_rate=1e5, working_set=1e6)
S = 1_000_000_000
RESULT: dict[str, Any] = {
    "t_request_ns": 10 * S, "t_stop_ns": 16 * S, "t_resume_ns": 16 * S + S // 10, "t_commit_ns": 18 * S,
    "phases": [{"name": "storage", "start_ns": 11 * S}, {"name": "precopy", "start_ns": 12 * S}],
    "bytes_qemu": {"ram": 40_000_000}, "downtime_ms": 100.0, "predicted": None, "capped": False,
}  # fmt: skip


def test_the_probe_finds_the_rate_of_a_slow_path(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> tuple[probe.Goodput, int]:
        near, far = wires(rate=2_000_000)
        sending = probe.send(near, asyncio.get_running_loop().time)
        goodput, taken = await asyncio.wait_for(asyncio.gather(sending, probe.receive(far)), 10)
        return goodput, taken

    goodput, taken = simtime.run(scenario, monkeypatch)
    assert taken == goodput.sent <= probe.MAX_BYTES
    assert goodput.seconds < 1.0
    assert goodput.rate == pytest.approx(2_000_000, rel=0.05)


def test_the_rate_is_that_of_the_second_half() -> None:
    slow_start = [(0.0, 0), (0.1, 10), (0.2, 30), (0.5, 100), (0.6, 200), (1.0, 600)]
    assert probe.settled_rate(slow_start) == pytest.approx(1000)
    assert probe.settled_rate([(0.0, 0)]) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1 << 40)), min_size=1).map(sorted))
def test_no_rate_is_negative(seen: list[tuple[float, int]]) -> None:
    assert probe.settled_rate(seen) >= 0


def test_a_probe_that_does_not_end_is_reset() -> None:
    async def scenario() -> None:
        near, far = wires()
        taking = asyncio.ensure_future(probe.receive(far))
        with pytest.raises(ConnectionResetError):
            for _ in range(2 * probe.MAX_READ // 65536):
                await near.write(bytes(65536))
                await asyncio.sleep(0)
        with pytest.raises(ConnectionResetError, match="more bytes"):
            await taking

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_pair_learns_from_its_migrations(tmp_path: Path) -> None:
    book = PairBook(tmp_path / "pairs.json")
    assert book.of("hv2") == Memory()
    book.learn("hv2", RESULT, probed=20e6)
    known = PairBook(tmp_path / "pairs.json").of("hv2")
    assert known == book.of("hv2")
    assert (known.goodput, known.share, known.runs) == (10e6, 0.5, 1)
    assert (known.costs.prepare_s, known.costs.finish_s) == (1.0, pytest.approx(1.9))
    again = known.after({**RESULT, "t_commit_ns": 20 * S}, 0.0)
    assert again.costs.finish_s == pytest.approx(2.9)
    assert known.after({**RESULT, "capped": True}, 5e6).goodput == known.goodput
    switched = known.after({**RESULT, "qemu_states": [{"status": "postcopy-active", "t_ns": 1}]}, 0.0)
    assert (switched.goodput, switched.costs.finish_s) == (known.goodput, known.costs.finish_s)


def test_a_wrong_prediction_of_the_downtime_is_learnt_from() -> None:
    predicted = {"downtime_s": 0.2, "switches": False}
    learnt = Memory(costs=Costs(stop_s=0.15)).after({**RESULT, "predicted": predicted}, 0.0)
    assert learnt.costs.stop_s == pytest.approx(0.1)


@pytest.mark.parametrize("text", ["", "[]", '{"hv2": 3}', '{"hv2": {"goodput": "x"}}'])
def test_a_damaged_book_begins_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pairs.json"
    path.write_text(text)
    book = PairBook(path)
    book.learn("hv2", RESULT)
    assert json.loads(path.read_text())["hv2"]["runs"] == 1


def test_a_plan_says_what_would_be() -> None:
    request = replace(REQUEST, tls="ab" * 32, verify=True)
    goodput = probe.Goodput(10e6, 0.02, 4_000_000, 0.5)
    options = parse({"bandwidth": 8})
    plan = foresee(request, options, "hv2", WORKLOAD, Memory(share=0.9), goodput)
    told = plan.as_dict()
    assert told["channels"] == channels(request) == {"rpc": 1, "ram": 1, "nbd": 1}
    assert told["storage_bytes"] == storage_bytes(request) == 1 << 20
    assert (told["goodput"], told["round_trip_ms"], told["rate_from"]) == (9_000_000, 20.0, "probe")
    assert told["policy"]["bandwidth"] == 8 << 20
    assert told["predicted"]["total_s"] > 32 / 8
    json.dumps(told)
    assert plan.fits(request, "hv2", options, plan.made + 1)
    assert not plan.fits(request, "hv2", parse({}), plan.made + 1)
    assert not plan.fits(request, "hv2", options, plan.made + 1000)


def test_without_a_rate_there_is_no_plan() -> None:
    with pytest.raises(XiatbError, match="no rate"):
        foresee(REQUEST, parse({}), "hv2", WORKLOAD, Memory(), None)


def test_a_destination_that_is_only_asked_keeps_nothing() -> None:
    machine = DestinationMachine()
    machine.on_established(CAPABILITIES, 0.0)
    machine.on_message(CAPABILITIES, 0.0)
    machine.take_actions()
    machine.on_message(m.Examine(job=JOB, request=REQUEST), 1.0)
    assert a.Examine(REQUEST) in machine.take_actions()
    probing = (m.Channel(kind="probe", index=0, token="ab" * 16),)
    machine.on_examined(probing, "", "", 2.0)
    assert a.Send(m.Examined(job=JOB, channels=probing)) in machine.take_actions()
    machine.on_message(m.Release(job=JOB), 3.0)
    assert machine.finished
    asked = [one for one in machine.take_actions() if not isinstance(one, (a.Phase, a.Finish))]
    assert asked == []
    assert machine.request is None
