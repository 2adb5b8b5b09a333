"""Watches whether a QEMU stands still with its main lock held: a processor of its guest waits for a page of a
post-copy, and its main thread waits for the lock that this processor holds.

Nothing is asked of QEMU, which could not answer: /proc/PID/task/TID/wchan (proc(5)) says in which function of
the kernel a thread waits. A thread that misses a page waits in `handle_userfault`; the main thread, which
else waits in poll, waits in a futex for the lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

STANDS_S = 0.3
_STEP_S = 0.1


class LockWatch:
    """While it is entered it looks ten times a second at the process that `find` gives (0: there is none)."""

    def __init__(self, find: Callable[[], int], proc: Path = Path("/proc")) -> None:
        self._find = find
        self._proc = proc
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.longest_s = 0.0
        """Longest time for which the lock was held without a break."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        since = None
        while not self._over.wait(_STEP_S):
            now = time.monotonic()
            if not locked(self._find(), self._proc):
                since = None
            elif since is None:
                since = now
            else:
                self.longest_s = max(self.longest_s, now - since)


def stands_still(pid: int) -> bool:
    """Whether its lock is held and stays so for STANDS_S, in which nothing can come any more that would free
    it."""
    end = time.monotonic() + STANDS_S
    while locked(pid):
        if time.monotonic() > end:
            return True
        time.sleep(0.01)
    return False


def locked(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether the main thread of the process waits for a lock while another one waits for a page."""
    if not pid:
        return False
    waits: dict[str, str] = {}
    with suppress(OSError):  # it ends while it is looked at
        for task in (proc / str(pid) / "task").iterdir():
            waits[task.name] = (task / "wchan").read_text()
    return waits.pop(str(pid), "").startswith("futex") and "handle_userfault" in waits.values()
