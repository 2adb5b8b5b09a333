"""Starting and ending a lab's supervisor: the half of `up` and `down` that runs in the user's process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb import errors
from xiatb.errors import DeadlineError, LabStateError, XiatbError
from xiatb.lab import doctor, process
from xiatb.lab.client import ControlClient, SocketGoneError
from xiatb.lab.extensions import GuestManager
from xiatb.lab.load import load
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.planner import make_plan
from xiatb.lab.state import no_such_lab, read_state
from xiatb.lab.supervisor import already_up, supervised
from xiatb.lab.teardown import remove_root, teardown

Event = dict[str, Any]
_ROLLBACK = 60.0
DOWN = 90.0

_KINDS: dict[int, type[XiatbError]] = {
    kind.exit_code: kind
    for kind in (
        XiatbError, errors.InvalidFileError, errors.CheckFailedError, errors.HostNotAbleError,
        LabStateError, DeadlineError, errors.InterruptedByUserError,
    )
}  # fmt: skip


def start(plan: Plan, supervise: list[str], progress: Callable[[Event], None]) -> None:
    """Start a supervisor with the command `supervise` and return when the lab is up.

    `progress` gets its step and progress events. An interruption (KeyboardInterrupt here, SIGTERM to us)
    makes it roll back, which is waited for. Raises what the supervisor failed with, with its exit code."""
    paths = LabPaths(plan.lab)
    if paths.root.is_dir() and any(paths.root.iterdir()):
        raise already_up(paths)
    child = subprocess.Popen(
        supervise,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, process.MARK: secrets.token_hex(16)},
        start_new_session=True,
        cwd="/",
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(plan.dumps().encode())
        _follow(child, progress)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        _wait_rolled_back(child, progress)
        raise
    finally:
        if child.poll() is not None and paths.journal.exists():
            teardown(paths)  # it was killed before it could roll back


def bring_up(
    topology: Path,
    *,
    lab: str | None = None,
    seed: int | None = None,
    data_plane: str | None = None,
    guests: GuestManager | None = None,
    progress: Callable[[Event], None] = lambda _: None,
) -> Plan:
    """Everything that `xiatb up` does, for programs: read, check, plan, probe the host, start, wait until
    ready.

    `guests` (the guest manager) only adds its checks of the host; the supervisor makes its own. Raises
    InvalidFileError, HostNotAbleError, LabStateError or what the supervisor failed with."""
    plan = make_plan(load(topology), lab=lab, seed=seed, data_plane=data_plane)
    doctor.require(plan, guests)
    start(plan, supervise_command(), progress)
    return plan


def take_down(lab: str, progress: Callable[[str], None] = lambda _: None) -> None:
    """Everything that `xiatb down LAB` does. Raises LabStateError when there is no such lab."""
    stop(LabPaths(lab), progress)


def _follow(child: subprocess.Popen[bytes], progress: Callable[[Event], None]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event["event"] == "ready":
            return
        if event["event"] == "failed":
            child.wait()
            if event["trace"]:
                sys.stderr.write(event["trace"])
            kind = _KINDS.get(event["exit_code"], XiatbError)
            raise kind(event["message"], hint=event["hint"])
        progress(event)
    code = child.wait()
    raise XiatbError(f"the supervisor ended before the lab was up (exit {code})")


def _wait_rolled_back(child: subprocess.Popen[bytes], progress: Callable[[Event], None]) -> None:
    """A second Ctrl-C stops the waiting only."""
    with contextlib.suppress(XiatbError):
        _follow(child, progress)  # when it says "ready" now, the signal makes it take the lab down
    try:
        child.wait(_ROLLBACK)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def stop(paths: LabPaths, progress: Callable[[str], None]) -> None:
    """Take a lab down, with its supervisor's help or, when that is dead or silent, without.

    Raises LabStateError (exit 5) when there is no such lab."""
    if not paths.journal.exists():
        if supervised(paths):
            raise LabStateError(f"lab {paths.lab} is being started or ended", hint="try again in a second")
        if paths.root.is_dir():
            remove_root(paths)
        raise no_such_lab(paths.lab)
    _stop_supervisor(paths, progress)
    if paths.journal.exists():
        teardown(paths, progress)


def _stop_supervisor(paths: LabPaths, progress: Callable[[str], None]) -> None:
    try:
        supervisor = read_state(paths).supervisor
    except LabStateError:
        return
    if not supervisor.alive():
        progress("the supervisor is dead; cleaning up without it")
        return
    try:
        with ControlClient(paths.socket) as client:
            for event in client.stream("down", timeout=DOWN):
                if event["event"] == "progress":
                    progress(event["message"])
    except SocketGoneError:
        supervisor.signal(signal.SIGTERM)  # not serving yet: it rolls back
    except XiatbError as error:
        progress(f"the supervisor could not do it ({error}); cleaning up without it")
    if process.wait_gone([supervisor], 20.0):
        supervisor.signal(signal.SIGKILL)
        process.wait_gone([supervisor], 5.0)


def supervise_command() -> list[str]:
    """How the command line starts its own hidden verb `supervise`."""
    return [sys.executable, "-m", "xiatb.cli.main", "supervise"]
