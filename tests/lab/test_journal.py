"""Journal, state and teardown on files and plain processes: no namespaces needed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.lines import next_line
from xiatb.errors import LabStateError
from xiatb.lab import process
from xiatb.lab.journal import Journal, processes, read_journal
from xiatb.lab.paths import LabPaths
from xiatb.lab.process import ProcessId, identify
from xiatb.lab.state import LabState, NodeState, read_state
from xiatb.lab.teardown import teardown


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    made = LabPaths("lab", run_root=tmp_path / "run", disk_root=tmp_path / "disk")
    made.root.mkdir(parents=True)
    return made


def begin(paths: LabPaths, lab_id: str = "0123") -> Journal:
    journal = Journal(paths.journal)
    journal.begin(lab_id)
    journal.path(paths.root)
    return journal


def sleeper(lab_id: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], env={**os.environ, process.MARK: lab_id})


def test_what_is_written_is_read_back_and_a_cut_line_is_ignored(paths: LabPaths) -> None:
    journal = begin(paths)
    journal.process(5, 77, what="x")
    journal.process(5, 77, what="x")
    journal.mount(Path("/m"))
    with paths.journal.open("a") as file:
        file.write('{"act": "tree", "pa')
    header, acts = read_journal(paths.journal)
    assert (header.id, header.this_boot) == ("0123", True)
    assert [act["act"] for act in acts] == ["tree", "process", "mount"]
    assert processes(acts) == [ProcessId(5, 77)]


@pytest.mark.parametrize("content", [None, "", "nonsense\n", '{"act": "tree", "path": "/"}\n'])
def test_a_missing_or_foreign_journal_is_no_lab(paths: LabPaths, content: str | None) -> None:
    if content is not None:
        paths.journal.write_text(content)
    with pytest.raises(LabStateError):
        teardown(paths)
    assert paths.root.exists()


def test_teardown_removes_what_the_journal_names_and_nothing_else(paths: LabPaths, tmp_path: Path) -> None:
    journal = begin(paths)
    foreign, own = tmp_path / "foreign", paths.disk / "hv1"
    foreign.mkdir()
    journal.path(paths.disk)
    journal.path(tmp_path / "never made")
    own.mkdir(parents=True)
    (own / "link").symlink_to(foreign)
    (paths.root / "nodes").mkdir()
    teardown(paths)
    assert not paths.root.exists()
    assert not paths.disk.exists()
    assert foreign.exists()
    with pytest.raises(LabStateError):
        teardown(paths)


def test_processes_are_stopped_by_identity_or_mark_never_by_number(paths: LabPaths) -> None:
    lab_id = os.urandom(8).hex()
    journal = begin(paths, lab_id)
    known, unknown, bystander = sleeper("other"), sleeper(lab_id), sleeper("other")
    try:
        found = identify(known.pid)
        assert found is not None
        journal.process(known.pid, found.start)
        journal.process(bystander.pid, 1)  # an earlier process with the same number
        teardown(paths)
        assert not found.alive()
        assert unknown.poll() is not None
        assert bystander.poll() is None
    finally:
        for child in (known, unknown, bystander):
            child.kill()
            child.wait(10)


def test_after_a_reboot_only_files_are_removed(paths: LabPaths) -> None:
    child = sleeper("other")
    try:
        found = identify(child.pid)
        assert found is not None
        journal = begin(paths)
        journal.process(child.pid, found.start)
        text = paths.journal.read_text().replace(process.boot_id(), "another boot")
        paths.journal.write_text(text)
        teardown(paths)
        assert child.poll() is None
        assert not paths.root.exists()
    finally:
        child.kill()
        child.wait(10)


def test_a_process_that_ignores_term_is_killed() -> None:
    argv = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert next_line(child.stdout) == "ready"
    found = identify(child.pid)
    assert found is not None
    assert process.stop_all([found], grace=0.2) == []
    assert not found.alive()
    assert not found.signal(0)
    child.stdout.close()


def test_state_survives_being_written(paths: LabPaths) -> None:
    one = ProcessId(3, 4)
    state = LabState("lab", "id", "boot", one, "now", "t.yaml")
    state.nodes["r1"] = NodeState("xiatb-lab-r1", 9, one, None, "/c")
    state.backends = {"rate": "tbf", "a:eth0--b:eth0": "delay-line", "c:eth0--d:eth0": "none"}
    state.processes["delay line"] = one
    state.save(paths.state)
    assert read_state(paths) == state
    assert paths.state.stat().st_mode & 0o777 == 0o600
    assert state.shaping_backend == "tbf+delay-line"
    paths.state.write_text("{")
    with pytest.raises(LabStateError, match="damaged"):
        read_state(paths)
