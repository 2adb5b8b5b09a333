"""A lab that is taken down in the midst of migrations."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.migration.test_manager import BusyManager, FakeManager, plan
from xiatb.cli import migrate as verb
from xiatb.errors import XiatbError
from xiatb.lab.client import SocketGoneError
from xiatb.lab.paths import LabPaths
from xiatb.lab.process import identify
from xiatb.migration import manager
from xiatb.node.control_protocol import ControlError

DEAF = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
STUBBORN = [sys.executable, "-c", DEAF]


@pytest.mark.parametrize("state", ["postcopy", "asking", "aborting"])
def test_what_cannot_be_cancelled_ends_with_its_lab_at_once(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A post-copy, a paused one, and a cancellation that the other end does not answer."""
    monkeypatch.setattr(manager, "CANCEL_S", 0.0)
    one = BusyManager()
    one.moving = {"vm2": state}
    with contextlib.ExitStack() as stack:
        stubborn = [stack.enter_context(subprocess.Popen(STUBBORN, stdout=subprocess.PIPE)) for _ in range(3)]
        daemon, there, other = stubborn
        for process in stubborn:
            stack.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == b"deaf\n"
        looked: list[tuple[Path, str]] = []

        def pids(root: Path, uuid: str) -> list[int]:
            looked.append((root, uuid))
            return [there.pid] if root == Path("/proc/2/root") else []

        monkeypatch.setattr(manager, "qemu_pids", pids)
        known = identify(daemon.pid)
        assert known is not None
        one._daemons["hv1"] = known
        lab = plan()
        lab.guests = (lab.guest("vm1"), SimpleNamespace(name="vm2", uuid="u2"))
        context: Any = SimpleNamespace(
            plan=lab, paths=LabPaths("t"), node_pid=lambda node: {"hv1": 1, "hv2": 2}[node]
        )
        one.stop(context)
        assert not known.alive() and there.wait(60) == -signal.SIGKILL
        assert other.poll() is None
        assert looked == [(Path("/proc/1/root"), "u2"), (Path("/proc/2/root"), "u2")], "no other guest"


@pytest.mark.parametrize(
    "error", [ControlError("cancelled", "by the user"), ControlError("guest-lost", "x"), SocketGoneError("y")]
)
def test_the_user_of_a_lab_that_ends_is_told_so(error: XiatbError, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FakeManager({"hv1": "running", "hv2": "absent"})

    def run(*_: Any) -> dict[str, Any]:
        one._ending = True
        raise error

    monkeypatch.setattr(one, "_run", run)
    context: Any = SimpleNamespace(plan=plan(), paths=LabPaths("t"))
    with pytest.raises(ControlError) as told:
        one.migrate(context, "vm1", "hv2", False, lambda event: None)
    assert (told.value.code, told.value.message) == ("cancelled", "the lab was taken down")
    assert told.value.hint == "vm1 ended with its lab t: bring that up again (xiatb up), then migrate again"
    shown = verb._meaning(told.value, cancelled=False)
    assert (shown.message, shown.exit_code) == ("not migrated (cancelled): the lab was taken down", 1)
