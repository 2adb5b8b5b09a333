"""The seam through which rooms above `lab` take part in a lab's life.

`lab` may not import `guests` or `migration`; the command line gives the supervisor objects that
satisfy these protocols. All methods are synchronous and may block: the supervisor calls them in
worker threads, never two at a time for the same hypervisor or guest. They raise `XiatbError`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.process import ProcessId
from xiatb.lab.runner import Runner


class Owner(Protocol):
    """What an extension tells the lab's journal, so that `down` finds it after any crash.

    Call the method *before* the act (for a process: right after it, `spawn` does both). Every
    method is idempotent and safe to call from several threads.
    """

    def path(self, path: Path, *, what: str = "") -> None:
        """The file or directory tree `path` is about to be made; `down` removes it."""

    def mount(self, path: Path, *, what: str = "") -> None:
        """Something is about to be mounted at `path` in the host's mount namespace."""

    def process(self, pid: int, start: int, *, what: str = "") -> None:
        """The process `pid` with /proc start time `start` belongs to the lab."""


class LabContext(Protocol):
    """What the supervisor lends to extensions."""

    @property
    def plan(self) -> Plan:
        """The whole lab."""

    @property
    def paths(self) -> LabPaths:
        """Its files."""

    @property
    def owner(self) -> Owner:
        """Its journal."""

    @property
    def runner(self) -> Runner:
        """Runs commands of the host."""

    def node_pid(self, node: str) -> int:
        """The pid whose network and mount namespaces are the node's (its Mininet shell)."""

    def in_node(self, node: str, argv: Sequence[str]) -> list[str]:
        """`argv` prefixed so that it runs in the node's network and mount namespaces."""

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
        """Start a long-lived process in the node's namespaces, in a session of its own, journalled, its
        output appended to `log`. XIA_CONTROL and the lab's ownership mark are in its environment. The
        supervisor reaps it and shows it in `status` as `what`."""

    def identify(self, pid: int) -> ProcessId:
        """pid and start time of a running process, for `owner.process`."""

    def ask_node(self, node: str, op: str, *, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
        """One request to the node process's control socket; its `result`."""

    def progress(self, message: str) -> None:
        """One line on the terminal of `xiatb up` (and in the supervisor's log)."""


class GuestManager(Protocol):
    """Guests and their libvirtd daemons; implemented by `xiatb.guests.manager`."""

    def check(self, plan: Plan) -> list[str]:
        """Reasons why this host cannot run the plan's guests (missing binary, image); may be empty. Quick."""

    def prepare(self, context: LabContext) -> None:
        """Write guest files (disks, keys, cpio, guest.json) once the nodes exist. Runs before node
        processes."""

    def start_hypervisor(self, context: LabContext, node: str) -> None:
        """Start libvirtd on hypervisor `node`; returns when it answers. Node processes run by then.
        Called for all hypervisors in parallel threads."""

    def ended(self, context: LabContext, what: str) -> None:
        """A process that was spawned as `what` has ended by itself: start it again, if it is one of ours and
        needed. Called in a thread, not more than a few times a minute."""

    def start_guest(self, context: LabContext, guest: str) -> None:
        """Define and start the guest; returns when its agent says ready. Called in parallel threads."""

    def stop(self, context: LabContext) -> None:
        """Stop guests and daemons in order. Must not fail because something is already gone."""

    def status(self, context: LabContext) -> dict[str, dict[str, Any]]:
        """guest name -> {"state": "running"|"paused"|"stopped"|..., "on": hypervisor name, ...}; quick."""

    def exec(
        self,
        context: LabContext,
        guest: str,
        argv: Sequence[str],
        emit: Callable[[str, bytes], None],
        timeout: float,
    ) -> int:
        """Run `argv` in the guest through its agent; emit("stdout"|"stderr", bytes) as output comes; exit
        code."""

    def agent(
        self, context: LabContext, guest: str, request: dict[str, Any], timeout: float
    ) -> dict[str, Any]:
        """One request to the guest's agent, on whatever hypervisor it is now; the agent's answer."""


class NodeService(Protocol):
    """A further process on hypervisor nodes (the migration daemon); started after libvirtd answers."""

    def start_node(self, context: LabContext, node: str) -> None:
        """Start on hypervisor `node`; returns when it is ready. Called in parallel threads."""

    def ended(self, context: LabContext, what: str) -> None:
        """As GuestManager.ended."""

    def stop(self, context: LabContext) -> None:
        """Stop everywhere; must not fail because something is already gone."""

    def status(self, context: LabContext) -> dict[str, dict[str, Any]]:
        """node name -> what `xiatb status` shows about it; quick."""


class Migrator(NodeService, Protocol):
    """The node service that also moves guests; implemented by `xiatb.migration.manager`."""

    def migrate(
        self,
        context: LabContext,
        guest: str,
        to: str,
        storage: bool,
        emit: Callable[[dict[str, Any]], None],
        options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Move a guest; emit an event dict per phase or progress report; the result with its timings.

        `options`: plain data that the migrator knows (migration.options)."""

    def control(
        self, context: LabContext, guest: str, action: str, changes: dict[str, Any]
    ) -> dict[str, Any]:
        """Act on a migration under way: "show" it, "set" other limits (`changes`), "switch" to post-copy,
        "resume"."""

    def plan(
        self, context: LabContext, guest: str, to: str, storage: bool, options: dict[str, Any]
    ) -> dict[str, Any]:
        """What `migrate` would do and take, as a dict; nothing is started."""

    def cancel(self, context: LabContext, guest: str) -> dict[str, Any]:
        """Stop a migration under way."""
