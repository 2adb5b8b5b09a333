"""Running something in a node in the foreground: `exec`, `shell`, and experiments' own programs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from xiatb.errors import DeadlineError
from xiatb.lab.context import in_node, node_environment
from xiatb.lab.paths import LabPaths
from xiatb.lab.state import LabState


def entry(
    paths: LabPaths, state: LabState, node: str, argv: Sequence[str], *, directory: Path | None = None
) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) that run a program inside a node; for subprocess and asyncio alike.

    Raises LabStateError when there is no such node or it is dead."""
    wanted = in_node(state, node, argv, directory=directory or paths.home(node))
    return wanted, {**os.environ, **node_environment(paths, state, node)}


def run_inside(
    paths: LabPaths,
    state: LabState,
    node: str,
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    extra: Mapping[str, str] | None = None,
) -> int:
    """Run to the end with this process's standard streams; exit code, 128 + n after signal n, 127 when
    there is no such program. Ctrl-C goes to the program. Raises DeadlineError (exit 124) after `timeout`
    seconds."""
    command, environment = entry(paths, state, node, argv)
    child = subprocess.Popen(command, env={**environment, **(extra or {})})
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait(timeout)
    except subprocess.TimeoutExpired as error:
        child.kill()
        child.wait()
        raise DeadlineError(f"{argv[0]} in {node}: not done after {timeout:g} s") from error
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code
