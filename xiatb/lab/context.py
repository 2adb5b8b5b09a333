"""What the lab lends to those who start things in it: namespaces to enter, a journal to write, processes to
own."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from xiatb.errors import LabStateError, XiatbError
from xiatb.lab import process
from xiatb.lab.client import ask_node
from xiatb.lab.journal import Journal
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.process import ProcessId
from xiatb.lab.runner import Runner
from xiatb.lab.state import LabState

_logger = logging.getLogger("xiatb.lab")


class Child(Protocol):
    """What the lab wants of a process of its own: a part of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Exit code, negative the number of the signal that ended it; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The same, waiting for its end. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal; fine when it has ended."""

    def terminate(self) -> None:
        """SIGTERM."""

    def kill(self) -> None:
        """SIGKILL."""


class Context:
    """Implements `extensions.LabContext`; shared by the lab's own steps and the extensions, thread-safe."""

    def __init__(
        self,
        plan: Plan,
        paths: LabPaths,
        journal: Journal,
        state: LabState,
        runner: Runner,
        report: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.paths = paths
        self.owner = journal
        self.runner = runner
        self.state = state
        self.children: dict[str, Child] = {}
        """what -> process started by `spawn` or by the fork server"""
        self.adopted: Callable[[str, Child], object] | None = None
        """Told of every further process, in the thread that started it."""
        self._report = report
        self._lock = threading.RLock()

    def progress(self, message: str) -> None:
        """One line for whoever waits, and for the log."""
        _logger.info("%s", message)
        self._report(message)

    def identify(self, pid: int) -> ProcessId:
        """pid and start time. Raises XiatbError when it has ended."""
        found = process.identify(pid)
        if found is None:
            raise XiatbError(f"process {pid} ended at once")
        return found

    def node_pid(self, node: str) -> int:
        """A living pid in the node's network and mount namespaces."""
        return namespace_pid(self.state, node)

    def in_node(self, node: str, argv: Sequence[str]) -> list[str]:
        """`argv` to be run inside the node's namespaces."""
        return in_node(self.state, node, argv)

    def environment(self, node: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment of a process in a node: the lab's mark, the node's control socket, a home of its
        own."""
        return {**os.environ, **node_environment(self.paths, self.state, node), **(extra or {})}

    def spawn(
        self,
        node: str,
        argv: Sequence[str],
        *,
        what: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a long-lived process in a node; see `extensions.LabContext`."""
        child = self.start(
            self.in_node(node, argv), what=what, log=log, env=self.environment(node, env), pass_fds=pass_fds
        )
        self.save()
        return child

    def start(
        self,
        argv: Sequence[str],
        *,
        what: str,
        log: Path,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start and journal a process of the lab anywhere. It bears the lab's mark from birth."""
        with open(log, "ab") as output:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**env, process.MARK: self.state.id},
                pass_fds=tuple(pass_fds),
                start_new_session=True,
                cwd="/",
            )
        self.adopt(child, process.identify_child(child.pid), what=what)
        return child

    def adopt(self, child: Child, found: ProcessId, *, what: str) -> None:
        """Journal a process of the lab that was just started, and watch it."""
        self.owner.process(found.pid, found.start, what=what)
        with self._lock:
            self.children[what] = child
            self.state.processes[what] = found
        if self.adopted is not None:
            self.adopted(what, child)

    def ask_node(self, node: str, op: str, *, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
        """One request to a node process. Raises ControlError, DeadlineError, SocketGoneError."""
        return ask_node(self.paths, node, op, timeout=timeout, **arguments)

    def save(self) -> None:
        """Write state.json."""
        with self._lock:
            self.state.save(self.paths.state)


def namespace_pid(state: LabState, node: str) -> int:
    """A living pid in a node's namespaces: its shell or its node process. Raises LabStateError."""
    if node not in state.nodes:
        known = ", ".join(sorted(state.nodes))
        raise LabStateError(f"no node named {node!r} in {state.lab}", hint=f"nodes: {known}")
    entry = state.nodes[node]
    for one in (entry.shell, entry.process):
        if one is not None and one.alive() and process.netns_inode(one.pid) == entry.inode:
            return one.pid
    raise LabStateError(f"{node}: all its processes are dead", hint=f"xiatb down {state.lab}")


def in_node(state: LabState, node: str, argv: Sequence[str], *, directory: Path | None = None) -> list[str]:
    """`argv` prefixed with what enters a node's network and mount namespaces (nsenter(1))."""
    where = [f"--wd={directory}"] if directory is not None else []
    return ["nsenter", f"--target={namespace_pid(state, node)}", "--net", "--mount", *where, "--", *argv]


def node_environment(paths: LabPaths, state: LabState, node: str) -> dict[str, str]:
    """What a process in a node finds in its environment besides what is there already."""
    return {
        process.MARK: state.id,
        "XIATB_LAB": state.lab,
        "XIATB_NODE": node,
        "XIA_CONTROL": str(paths.control(node)),
        "HOME": str(paths.home(node)),
        "PS1": f"{state.lab}/{node}# ",
    }


def last_words(log_file: Path, lines: int = 3) -> str:
    """The last lines of a log, for error messages."""
    try:
        text = log_file.read_text(errors="replace")
    except OSError:
        return "no log"
    return " | ".join(text.strip().splitlines()[-lines:]) or "no output"
