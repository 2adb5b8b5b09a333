"""How much of the processors a session gets: read back from the kernel."""

from __future__ import annotations

import os
import subprocess
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


@needs_groups
def test_a_session_that_it_does_not_lead_is_left_alone() -> None:
    before = niceness(os.getpid())
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not favour_session(child.pid, -9)
        child.kill()
    assert niceness(os.getpid()) == before


def test_a_process_that_is_gone_has_no_session() -> None:
    assert not favour_session(2**22 + 1, -9)


def test_a_kernel_without_groups_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "ENABLED", tmp_path / "none")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        assert not grouped() and not favour_session(child.pid, -9)
        child.kill()
