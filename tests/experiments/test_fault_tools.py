"""The means of `scripts/faults` that need no lab: held processes, memory groups, events of phases."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xiatb.errors import HostNotAbleError, XiatbError
from xiatb.experiments.faults.holding import Hold
from xiatb.experiments.faults.memorygroup import MemoryGroup
from xiatb.experiments.faults.runner import reached
from xiatb.experiments.faults.strikes import writing
from xiatb.lab.process import ProcessId, identify


@pytest.fixture
def sleeper() -> Iterator[ProcessId]:
    with subprocess.Popen(["sleep", "60"]) as child:
        found = identify(child.pid)
        assert found is not None
        yield found
        child.kill()


def becomes(process: ProcessId, wanted: str) -> bool:
    """Whether it gets into this state (proc(5)) within five seconds; signals take an instant."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == wanted:
            return True
    return False


def test_a_held_process_stands_still_and_goes_on(sleeper: ProcessId) -> None:
    with Hold(sleeper):
        assert becomes(sleeper, "T")
    assert becomes(sleeper, "S")


def test_a_held_process_runs_for_instants_until_what_it_has_to_do_is_done(sleeper: ProcessId) -> None:
    looks: list[float] = []

    def done() -> bool:
        looks.append(time.monotonic())
        return looks[-1] - looks[0] > 0.25

    with Hold(sleeper) as hold:
        hold.until(done)
        assert becomes(sleeper, "T")
    assert becomes(sleeper, "S")


def test_a_process_that_is_gone_cannot_be_held() -> None:
    with pytest.raises(XiatbError, match="is gone"), Hold(ProcessId(2**22 + 1, 1)):
        pass


def test_a_memory_group_of_either_version(tmp_path: Path) -> None:
    with pytest.raises(HostNotAbleError, match="no memory control groups"):
        MemoryGroup("g", tmp_path / "none").take(1)
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").touch()
    MemoryGroup("g", tmp_path).take(4711)
    group = tmp_path / "memory" / "g"
    assert (group / "cgroup.procs").read_text() == "4711"
    assert int((group / "memory.limit_in_bytes").read_text()) == 64 << 10
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert MemoryGroup("g", tmp_path).kills() == 1
    second = tmp_path / "second"
    second.mkdir()
    MemoryGroup("g", second).take(4711)
    assert (second / "g" / "memory.max").exists()


def test_what_is_written_at_the_side_is_waited_for_and_may_fail() -> None:
    done: list[int] = []
    with writing(lambda: done.append(1)):
        pass
    assert done == [1]

    def fail() -> None:
        raise XiatbError("no room")

    with pytest.raises(XiatbError, match="no room"), writing(fail):
        pass


@pytest.mark.parametrize(
    ("event", "phases"),
    [
        ({"event": "progress", "phase": "storage", "transferred": 0, "pass": 0}, set()),
        ({"event": "progress", "phase": "storage", "transferred": 1, "pass": 0}, {"storage"}),
        ({"event": "progress", "phase": "precopy", "transferred": 1, "pass": 1}, {"first"}),
        ({"event": "progress", "phase": "precopy", "transferred": 1, "pass": 2}, {"later"}),
        ({"event": "phase", "phase": "switchover"}, {"switchover"}),
        ({"event": "phase", "phase": "handover"}, {"handover"}),
        ({"event": "progress", "phase": "postcopy", "transferred": 1, "pass": 1}, {"postcopy"}),
        ({"event": "decision"}, set()),
    ],
)
def test_which_event_is_the_middle_of_which_phase(event: dict[str, object], phases: set[str]) -> None:
    every = ("storage", "first", "later", "switchover", "handover", "postcopy")
    assert {phase for phase in every if reached(event, phase)} == phases
