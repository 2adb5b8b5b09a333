"""Captures: dumpcap (of Wireshark) in a node's namespace, writing pcapng."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from xiatb.errors import DeadlineError, HostNotAbleError, UsageError, XiatbError
from xiatb.lab.context import Context, in_node
from xiatb.lab.plan import Plan
from xiatb.lab.source import did_you_mean
from xiatb.lab.state import LabState

_START = 10.0
_DRAIN = 0.5
"""dumpcap gets frames in blocks up to 0.1 s old and drops what it has not got when it is told to end"""
_COUNTED = re.compile(rb"received/dropped on interface '[^']*': (\d+)/(\d+)")


def split_target(plan: Plan, target: str) -> tuple[str, list[str]]:
    """ "r1:eth0" -> ("r1", ["eth0"]); "r1" -> all its ports; "r1:0" is eth0. Raises UsageError with a
    hint."""
    name, _, port = target.partition(":")
    names = {node.name: node for node in plan.nodes}
    if name not in names:
        guests = {guest.name: guest for guest in plan.guests}
        hint = did_you_mean(name, names)
        if name in guests:
            hint = f"capture at its tap: {guests[name].on}:{guests[name].tap}"
        raise UsageError(f"no node named {name!r} in {plan.lab}", hint=hint)
    known = [one.name for one in names[name].ports] + ["xia0"]
    if not port:
        return name, known[:-1]
    port = f"eth{port}" if port.isdigit() else port
    if port not in known:
        raise UsageError(f"{name} has no port {port!r}", hint=did_you_mean(port, known))
    return name, [port]


class Capture:
    """One dumpcap. `start` returns when it catches frames, `stop` when the file is complete."""

    def __init__(
        self,
        plan: Plan,
        node: str,
        ports: list[str],
        file: Path,
        *,
        snaplen: int = 0,
        duration: float = 0,
        count: int = 0,
    ) -> None:
        """`ports` empty: all of the node's. 0 means no limit. Raises UsageError."""
        self.node, self.ports = node, ports or split_target(plan, node)[1]
        for port in self.ports:
            split_target(plan, f"{node}:{port}")
        self.file = file.absolute()
        self._limits = (snaplen, duration, count)
        self._child: subprocess.Popen[bytes] | None = None
        self._said = b""

    def argv(self) -> list[str]:
        """dumpcap's command line."""
        snaplen, duration, count = self._limits
        command = ["dumpcap", "-n", "-w", str(self.file)]
        for port in self.ports:
            command += ["-i", port]
            command += ["-s", str(snaplen)] if snaplen else []
        command += ["-a", f"duration:{duration:g}"] if duration else []
        return command + (["-c", str(count)] if count else [])

    def start(self, context: Context) -> None:
        """From the supervisor: the process is the lab's."""
        self.open(
            context.state, lambda child: context.owner.process(*_identity(context, child), what="dumpcap")
        )

    def open(self, state: LabState, journal: Any = None) -> None:
        """Start dumpcap and wait until it catches. Raises XiatbError with its words when it does not."""
        if not self.file.parent.is_dir():
            raise UsageError(f"no such directory: {self.file.parent}")
        try:
            self._child = subprocess.Popen(
                in_node(state, self.node, self.argv()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise HostNotAbleError("nsenter: no such program", hint="run scripts/setup") from error
        if journal is not None:
            journal(self._child)
        self._await(b"File: ", time.monotonic() + _START)

    def finished(self, timeout: float) -> bool:
        """Wait for dumpcap's own end (duration, count); False when it still runs after `timeout` seconds."""
        assert self._child is not None
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> dict[str, Any]:
        """End it; {"file","packets","dropped"}."""
        assert self._child is not None
        if not self.finished(_DRAIN):
            self._child.send_signal(signal.SIGINT)
        try:
            self._said += self._child.communicate(timeout=10)[1] or b""
        except subprocess.TimeoutExpired as error:
            self._child.kill()
            self._child.wait()
            raise DeadlineError(f"dumpcap on {self.node} did not finish {self.file}") from error
        counted = [(int(got), int(dropped)) for got, dropped in _COUNTED.findall(self._said)]
        give_to_user(self.file)
        return {
            "file": str(self.file),
            "packets": sum(one[0] for one in counted),
            "dropped": sum(one[1] for one in counted),
        }

    def _await(self, word: bytes, deadline: float) -> None:
        child = self._child
        assert child is not None and child.stderr is not None
        while word not in self._said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([child.stderr], [], [], left)[0]:
                child.kill()
                raise DeadlineError(f"dumpcap on {self.node} did not start")
            data = os.read(child.stderr.fileno(), 4096)
            if not data:
                child.wait()
                words = self._said.decode(errors="replace").strip().splitlines()
                raise XiatbError(f"dumpcap on {self.node}: {words[-1] if words else 'ended at once'}")
            self._said += data


def _identity(context: Context, child: subprocess.Popen[bytes]) -> tuple[int, int]:
    found = context.identify(child.pid)
    return found.pid, found.start


def give_to_user(path: Path) -> None:
    """A file made under sudo belongs to whom it was made for."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if uid.isdigit() and gid.isdigit() and path.exists():
        os.chown(path, int(uid), int(gid))
