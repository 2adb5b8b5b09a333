"""The fork server on the real kernel: what its children are, and what is left when it is killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.lab.labs import TestLab, leftovers, needs_root, running
from xiatb.experiments.bench.scale import cpu_time, grid, idle_load, pss
from xiatb.lab import process
from xiatb.lab.forkserver import WHAT
from xiatb.lab.journal import processes, read_journal
from xiatb.lab.state import read_state
from xiatb.lab.status import lab_status

pytestmark = [pytest.mark.netns, needs_root]


def test_a_forked_node_is_a_process_like_any_other(tmp_path: Path) -> None:
    with running(tmp_path) as (lab, state):
        server = state.processes[WHAT]
        journalled = processes(read_journal(lab.paths.journal)[1])
        for name, node in state.nodes.items():
            assert node.process is not None
            pid = node.process.pid
            assert {node.process, server} <= set(journalled)
            assert os.getsid(pid) == pid
            for kind in ("net", "mnt"):
                here, there = (os.stat(f"/proc/{one}/ns/{kind}") for one in (pid, node.shell.pid))
                assert here.st_ino == there.st_ino
            title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
            assert title == f"xiatb.node {lab.paths.node(name) / 'node.json'}"
            assert Path(f"/proc/{pid}/comm").read_text() == f"xiatb {name}\n"
            assert os.getpriority(os.PRIO_PROCESS, pid) == -12
            opened = {os.readlink(f"/proc/{pid}/fd/{one}") for one in (1, 2)}
            assert opened == {str(lab.paths.node_log(name))}
        assert server in process.marked(state.id)


def test_a_lab_whose_fork_server_is_killed_works_and_goes_down(tmp_path: Path) -> None:
    with running(tmp_path) as (lab, state):
        server = state.processes[WHAT]
        server.signal(signal.SIGKILL)
        assert process.wait_gone([server], 5) == []
        assert lab_status(lab.paths)["status"] == "degraded"
        assert lab.cli("ping", "-l", lab.name, "h1", "h2", "-c", "1").returncode == 0
        state.supervisor.signal(signal.SIGKILL)
        assert process.wait_gone([state.supervisor], 5) == []
        assert lab.cli("down", lab.name).returncode == 0
        assert leftovers(lab.name, state.id) == []


def test_the_log_tells_how_a_node_ended(tmp_path: Path) -> None:
    with running(tmp_path) as (lab, state):
        killed = state.nodes["h2"].process
        assert killed is not None
        killed.signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while "node h2 ended (signal 9)" not in lab.paths.supervisor_log.read_text():
            assert time.monotonic() < deadline, lab.paths.supervisor_log.read_text()


@pytest.mark.alone
def test_a_lab_of_thirty_two_nodes_comes_up_and_idles(tmp_path: Path) -> None:
    lab = TestLab(tmp_path, grid(4))
    try:
        lab.up()
        state = read_state(lab.paths)
        routers = [one.process.pid for name, one in state.nodes.items() if name[0] == "r" and one.process]
        assert len(routers) == 16
        assert max(map(pss, routers)) < 30e6
        assert sum(map(cpu_time, routers)) / len(routers) < 1.0
        assert lab.cli("ping", "-l", lab.name, "h0-0", "h3-3", "-c", "1").returncode == 0
        assert idle_load(state, 0.5, 2.0) < 0.5
    finally:
        lab.down()
    assert leftovers(lab.name, state.id) == []
