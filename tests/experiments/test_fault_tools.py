"""The means of `scripts/faults` that need no lab: held processes, memory groups, events of phases."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xiatb.errors import HostNotAbleError, XiatbError
from xiatb.experiments.faults.__main__ import tell
from xiatb.experiments.faults.holding import Hold
from xiatb.experiments.faults.lockwatch import LockWatch, locked
from xiatb.experiments.faults.memorygroup import MemoryGroup
from xiatb.experiments.faults.runner import Report, reached
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
        hold.until(done, "never")
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


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (Report("cut", "first", ended=True, runs_on=["hv2"]), "exit 0, runs on hv2 after 0.0 s; moved"),
        (Report("cut", "first", problems=["the migration does not end"]), "not seen to end"),
    ],
)
def test_a_cell_without_an_end_is_not_told_as_moved(
    report: Report, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(report, None)
    verdict = report.problems[0] if report.problems else "as the table says"
    assert capsys.readouterr().out == f"cut/first: {line}\n  hint: -\n  {verdict}\n"


def threads(place: Path, **waits: str) -> None:
    """A process 7 in this /proc whose threads wait so; `t7` is its main one."""
    for name, where in waits.items():
        task = place / "7" / "task" / name[1:]
        task.mkdir(parents=True, exist_ok=True)
        (task / "wchan").write_text(where)


@pytest.mark.parametrize(
    ("main", "processor", "held"),
    [
        ("futex_wait_queue", "handle_userfault", True),
        ("futex_do_wait", "handle_userfault", True),
        ("poll_schedule_timeout", "handle_userfault", False),
        ("futex_wait_queue", "futex_wait_queue", False),
        ("handle_userfault", "0", False),
    ],
)
def test_a_lock_is_held_when_one_thread_waits_for_it_and_another_for_a_page(
    main: str, processor: str, held: bool, tmp_path: Path
) -> None:
    threads(tmp_path, t7=main, t8="0", t9=processor)
    assert locked(7, tmp_path) is held
    assert not locked(8, tmp_path)
    assert not locked(0, tmp_path)


def test_the_longest_time_is_kept(tmp_path: Path) -> None:
    threads(tmp_path, t7="futex_wait_queue", t9="handle_userfault")
    seen: list[int] = []

    def find() -> int:
        seen.append(1)
        if len(seen) == 4:
            threads(tmp_path, t9="0")
        return 7

    with LockWatch(find, tmp_path) as watch:
        deadline = time.monotonic() + 20.0
        while len(seen) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert watch.longest_s > 0.15  # three looks, a tenth of a second apart at least
