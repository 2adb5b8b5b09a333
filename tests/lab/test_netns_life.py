"""A lab's life on the real kernel: up, down, killed, interrupted, twice, side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.labs import INTERRUPTED, TestLab, cli, leftovers, needs_root, running
from xiatb.errors import LabStateError
from xiatb.lab import process
from xiatb.lab.paths import NETNS_ROOT
from xiatb.lab.process import ProcessId
from xiatb.lab.state import read_state
from xiatb.lab.status import lab_status

pytestmark = [pytest.mark.netns, needs_root]


def root_links() -> list[str]:
    shown = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True)
    return [link["ifname"] for link in json.loads(shown.stdout)]


@pytest.mark.alone
def test_up_and_down_leave_the_host_as_it_was(tmp_path: Path) -> None:
    links = root_links()
    with running(tmp_path) as (lab, state):
        assert {node.netns for node in state.nodes.values()} <= {entry.name for entry in NETNS_ROOT.iterdir()}
        assert root_links() == links
        status = lab_status(lab.paths)
        assert status["status"] == "up"
        assert {node["state"] for node in status["nodes"]} == {"joined"}
        shown = subprocess.run(
            ["ip", "-n", f"xiatb-{lab.name}-r1", "link"], capture_output=True, text=True, check=True
        ).stdout
        assert f"altname xiatb:{lab.name}:r1:eth0" in shown
    assert root_links() == links


def test_state_and_keys_are_for_root_only(tmp_path: Path) -> None:
    with running(tmp_path) as (lab, _):
        for path in (lab.paths.root, lab.paths.keys):
            assert path.stat().st_mode & 0o777 == 0o700
        for path in (lab.paths.socket, lab.paths.control("h1"), lab.paths.key("h1"), lab.paths.state):
            assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_up_and_a_second_down_end_with_5(tmp_path: Path) -> None:
    with running(tmp_path) as (lab, _):
        again = lab.cli("up", str(lab.file), "-n", lab.name)
        assert again.returncode == 5
        assert "is up already" in again.stderr
        assert lab_status(lab.paths)["status"] == "up"
        lab.down()
        with pytest.raises(LabStateError):
            lab.down()
        assert lab.cli("down", lab.name).returncode == 5


def test_down_after_the_supervisor_was_killed(tmp_path: Path) -> None:
    with running(tmp_path) as (lab, state):
        state.supervisor.signal(signal.SIGKILL)
        assert process.wait_gone([state.supervisor], 5) == []
        shown = lab.cli("status", lab.name, "-o", "json")
        assert shown.returncode == 1
        assert json.loads(shown.stdout)["status"] == "dead"
        again = lab.cli("up", str(lab.file), "-n", lab.name)
        assert again.returncode == 5
        assert f"xiatb down {lab.name}" in again.stderr
        assert lab.cli("exec", "-l", lab.name, "h1", "--", "true").returncode == 0
        assert lab.cli("down", lab.name).returncode == 0
        assert leftovers(lab.name, state.id) == []


@pytest.mark.parametrize("victim", ["shell", "process"])
def test_a_killed_node_is_seen_and_taken_down(tmp_path: Path, victim: str) -> None:
    with running(tmp_path) as (lab, state):
        killed: ProcessId = getattr(state.nodes["r1"], victim)
        killed.signal(signal.SIGKILL)
        process.wait_gone([killed], 5)
        if victim == "process":
            shown = lab.cli("status", lab.name, "-o", "json")
            assert shown.returncode == 1
            status = json.loads(shown.stdout)
            assert status["status"] == "degraded"
            assert {node["name"]: node["state"] for node in status["nodes"]}["r1"] == "dead"
        assert lab.cli("exec", "-l", lab.name, "r1", "--", "true").returncode == 0


@pytest.mark.parametrize(
    ("number", "after"), [(signal.SIGINT, 0.7), (signal.SIGTERM, 1.0), (signal.SIGINT, 1.4)]
)
def test_an_interrupted_up_leaves_nothing(tmp_path: Path, number: int, after: float) -> None:
    lab = TestLab(tmp_path)
    child = subprocess.Popen(cli("up", str(lab.file), "-n", lab.name), stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    deadline = time.monotonic() + after
    lab_id = "none yet"
    while time.monotonic() < deadline:
        if lab.paths.journal.exists() and lab_id == "none yet":
            lab_id = lab.lab_id() if lab.paths.journal.stat().st_size else lab_id
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    if child.returncode == 0:
        lab.down()
    else:
        assert child.returncode in (*INTERRUPTED, -number), errors  # the last: before it listens to signals
    assert leftovers(lab.name, lab_id) == []


def test_an_up_whose_terminal_is_killed_rolls_back(tmp_path: Path) -> None:
    lab = TestLab(tmp_path)
    child = subprocess.Popen(cli("up", str(lab.file), "-n", lab.name), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not (lab.paths.journal.exists() and lab.paths.journal.read_text().count("\n") > 3):
        assert time.monotonic() < deadline
    lab_id = lab.lab_id()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    while lab.paths.root.exists() and time.monotonic() < deadline:
        pass
    assert leftovers(lab.name, lab_id) == []


def test_an_up_whose_supervisor_is_killed_leaves_nothing(tmp_path: Path) -> None:
    lab = TestLab(tmp_path)
    child = subprocess.Popen(cli("up", str(lab.file), "-n", lab.name), stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if line.rstrip().endswith("] node processes"):
            break
    state = read_state(lab.paths)
    state.supervisor.signal(signal.SIGKILL)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "the supervisor ended before the lab was up" in errors
    assert leftovers(lab.name, state.id) == []


def test_a_failing_up_names_the_reason_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken.click"
    broken.write_text("this is not :: a Click( file")
    lab = TestLab(tmp_path, f"name: x\nnodes: {{r1: {{kind: router, ad: a, click: {broken.name}}}}}\n")
    done = lab.cli("up", str(lab.file), "-n", lab.name)
    assert done.returncode == 1
    assert "node process of r1" in done.stderr
    assert "broken.click" in done.stderr
    assert leftovers(lab.name, "none") == []


def test_two_labs_do_not_disturb_each_other(tmp_path: Path) -> None:
    with running(tmp_path) as (one, _), running(tmp_path) as (two, other):
        assert one.cli("ping", "-l", one.name, "h1", "h2", "-c", "1").returncode == 0
        one.down()
        assert lab_status(two.paths)["status"] == "up"
        assert all(node.process and node.process.alive() for node in other.nodes.values())
        assert two.cli("ping", "-l", two.name, "h1", "h2", "-c", "1").returncode == 0


def test_a_foreign_namespace_of_our_name_is_left_alone(tmp_path: Path) -> None:
    lab = TestLab(tmp_path)
    name = f"xiatb-{lab.name}-h2"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        done = lab.cli("up", str(lab.file), "-n", lab.name)
        assert done.returncode == 5
        assert name in done.stderr
        assert subprocess.run(["ip", "netns", "exec", name, "true"], check=False).returncode == 0
        assert not lab.paths.root.exists()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_an_invalid_file_starts_nothing(tmp_path: Path) -> None:
    lab = TestLab(tmp_path, "name: x\nnodes: {r1: {kind: router}}\n")
    done = lab.cli("up", str(lab.file), "-n", lab.name)
    assert done.returncode == 2
    assert f"{lab.file}:2:9: nodes.r1: a router needs an ad" in done.stderr
    assert not lab.paths.root.exists()
