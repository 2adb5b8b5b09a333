"""A memory control group (cgroup v1 or v2) in which a process gets no page more.

The kernel's own out-of-memory killer ends the process at the next page that it asks for. See
Documentation/admin-guide/cgroup-v1/memory.rst, section 2.5, and cgroup-v2.rst, "Memory", in Linux.
"""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

from xiatb.errors import HostNotAbleError, XiatbError
from xiatb.lab.process import ProcessId

ROOT = Path("/sys/fs/cgroup")
LIMIT = 64 << 10
"""A few pages: what the process had before stays charged to where it was."""
END_S = 30.0


class MemoryGroup:
    """One group, made by `take` and removed by `end`."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        first = (root / "memory" / "memory.limit_in_bytes").exists()
        self._path = (root / "memory" if first else root) / name
        self._limit = "memory.limit_in_bytes" if first else "memory.max"
        self._events = "memory.oom_control" if first else "memory.events"

    def take(self, pid: int) -> None:
        """Put the process into it. Raises HostNotAbleError where there are no such groups."""
        try:
            self._path.mkdir()
            (self._path / self._limit).write_text(str(LIMIT))
            (self._path / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._path.rmdir()
            raise HostNotAbleError(f"{self._path}: {error.strerror}: no memory control groups") from None

    def end(self, process: ProcessId) -> None:
        """Wait for the process's end and remove the group; raises XiatbError unless the kernel has ended it
        for want of memory within END_S."""
        deadline = time.monotonic() + END_S
        while process.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        survived = process.alive()
        if survived:
            process.signal(signal.SIGKILL)
        while process.alive():
            time.sleep(0.05)
        killed = self.kills()
        self._remove(deadline)
        if survived or not killed:
            raise XiatbError("the kernel did not end the process for want of memory")

    def _remove(self, deadline: float) -> None:
        """Once the kernel has let go of the dead process."""
        while True:
            try:
                self._path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def kills(self) -> int:
        """How many processes the kernel has ended here for want of memory."""
        words = (line.split() for line in (self._path / self._events).read_text().splitlines())
        return next((int(line[1]) for line in words if line[0] == "oom_kill"), 0)
