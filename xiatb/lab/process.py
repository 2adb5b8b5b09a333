"""Which process is which: a pid means something only together with its start time.

Start times come from /proc/PID/stat (field 22, proc(5)), in clock ticks since boot. Nothing here ever
signals a process by name.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "XIATB_LAB_ID"
"""Environment variable that marks every process started for a lab; its value is the lab's random id."""

_AT_ONCE = 400
"""Fewer than the descriptors that a process may have open by default."""


@dataclass(frozen=True, order=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start: int

    def alive(self) -> bool:
        """True while it runs; a zombie is dead."""
        return _stat(self.pid)[:2] == (self.start, True)

    def signal(self, number: int) -> bool:
        """Send a signal if it is still that very process; False when it is gone.

        A pidfd closes the gap between the check and the signal."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except (ProcessLookupError, OSError):
            return False
        try:
            if not self.alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def identify(pid: int) -> ProcessId | None:
    """The identity of a running process; None when there is none (or only a zombie)."""
    start, running = _stat(pid)
    return ProcessId(pid, start) if running else None


def identify_child(pid: int) -> ProcessId:
    """The identity of a child that was not waited for yet, even if it has ended already."""
    return ProcessId(pid, _stat(pid)[0])


def boot_id() -> str:
    """The kernel's random id of this boot; pids, namespaces and mounts do not outlive it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stop_all(processes: Iterable[ProcessId], *, grace: float = 3.0) -> list[ProcessId]:
    """TERM all, wait up to `grace` seconds, KILL the rest, wait again; gives those that still live."""
    mine = os.getpid()
    living = [one for one in processes if one.pid != mine and one.signal(signal.SIGTERM)]
    for one in living:
        one.signal(signal.SIGCONT)
    living = wait_gone(living, grace)
    for one in living:
        one.signal(signal.SIGKILL)
    return wait_gone(living, 5.0)


def wait_gone(processes: Iterable[ProcessId], timeout: float) -> list[ProcessId]:
    """Wait until all are gone; gives those that are not after `timeout` seconds. Own children are reaped."""
    deadline = time.monotonic() + timeout
    waiting = list(processes)
    living: list[ProcessId] = []
    while waiting:
        living += _wait_some(waiting[:_AT_ONCE], deadline)
        del waiting[:_AT_ONCE]
    return living


def marked(lab_id: str) -> list[ProcessId]:
    """Every process whose environment bears the mark of the lab with this id."""
    wanted = f"{MARK}={lab_id}".encode()
    return [one for one in _everyone() if wanted in _environ(one.pid)]


def in_netns(inodes: Iterable[int]) -> list[ProcessId]:
    """Every process whose network namespace is one of these inodes."""
    wanted = set(inodes)
    return [one for one in _everyone() if netns_inode(one.pid) in wanted]


def netns_inode(pid: int) -> int | None:
    """Inode of a process's network namespace; None when it is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def _everyone() -> Iterable[ProcessId]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (one := identify(int(entry))) is not None:
            yield one


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _stat(pid: int) -> tuple[int, bool]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1, False
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[19]), fields[0] not in ("Z", "X")


def _reap(processes: Iterable[ProcessId]) -> None:
    for one in processes:
        try:
            os.waitpid(one.pid, os.WNOHANG)
        except ChildProcessError:
            continue


def _wait_some(processes: list[ProcessId], deadline: float) -> list[ProcessId]:
    """`wait_gone` for as many as we may have descriptors of: each is looked at once, then told of by its
    pidfd."""
    poller = select.poll()
    watched: dict[int, ProcessId] = {}
    try:
        for one in processes:
            try:
                descriptor = os.pidfd_open(one.pid)
            except ProcessLookupError:
                continue
            watched[descriptor] = one
            if one.alive():
                poller.register(descriptor, select.POLLIN)
            else:
                os.close(descriptor)
                del watched[descriptor]
        while watched and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left * 1000):
                poller.unregister(descriptor)
                os.close(descriptor)
                del watched[descriptor]
    finally:
        for descriptor in watched:
            os.close(descriptor)
    _reap(processes)
    return list(watched.values())
