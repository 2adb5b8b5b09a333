"""How much of the processors a session gets: read back from the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from xiatb.node import session
from xiatb.node.session import favour_session, grouped

needs_groups = pytest.mark.skipif(
    os.geteuid() != 0 or not grouped(), reason="needs root and a kernel that groups sessions"
)


def niceness(pid: int) -> int:
    """From "/autogroup-17 nice -9"."""
    return int(Path(f"/proc/{pid}/autogroup").read_text(encoding="ascii").split()[-1])


@needs_groups
def test_a_session_of_its_own_gets_the_niceness_as_a_whole() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        before = niceness(child.pid)
        assert favour_session(child.pid, -9)
        found = niceness(child.pid)
        child.kill()
    assert (before, found) == (0, -9)


@pytest.fixture
def follower() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process in a session of which it is not the leader, and the leader (a shell), which waits for it.

    The session is one that the test made: the test's own may have no group at all (a process that descends
    from no setsid(2) has none, and its file is empty)."""
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], start_new_session=True, stdout=subprocess.PIPE, text=True
    ) as leader:
        assert leader.stdout is not None
        pid = int(leader.stdout.readline())
        process = os.pidfd_open(pid)
        yield pid, leader
        signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)


@needs_groups
def test_a_session_that_it_does_not_lead_is_left_alone(follower: tuple[int, subprocess.Popen[str]]) -> None:
    assert not favour_session(follower[0], -9)
    assert niceness(follower[0]) == 0


@needs_groups
def test_a_session_whose_leader_has_gone_is_its_own(follower: tuple[int, subprocess.Popen[str]]) -> None:
    pid, leader = follower
    leader.kill()
    leader.wait()
    assert favour_session(pid, -9)
    assert niceness(pid) == -9


def test_a_leader_that_is_not_seen_from_here_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getsid", lambda pid: 0)
    assert not favour_session(os.getpid(), 0)


def test_a_process_that_is_gone_has_no_session() -> None:
    assert not favour_session(2**22 + 1, -9)


def test_a_kernel_without_groups_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "ENABLED", tmp_path / "none")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        assert not grouped() and not favour_session(child.pid, -9)
        child.kill()
