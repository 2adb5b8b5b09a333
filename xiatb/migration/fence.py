"""The fence of the hand-over: the stopped guest's QEMU process at the source is itself stopped (SIGSTOP).

libvirt lets a guest run on as soon as it believes that its migration has failed, also when this daemon has
died and with it libvirt's connection to the destination. A process that is stopped cannot do that: libvirt's
`cont` waits in its monitor until the process goes on, and the kernel keeps it stopped whoever dies. QEMU is
not needed between Finish and its answer: its memory and disks have been sent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from xiatb.errors import XiatbError

STOP_S = 0.5
_LOOK_S = 0.0002


class Fence:
    """One guest's process, by pid and start time, so that no other process is ever signalled."""

    def __init__(self, process: tuple[int, int]) -> None:
        self.process = process

    @classmethod
    def of(cls, guest: str, pids: Path) -> Fence:
        """The process that runs `guest` here, by libvirt's pid files; finding nothing, it cannot freeze."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((pids / f"{guest}.pid").read_text())
            return cls((pid, _start_time(pid)))
        return cls((0, 0))

    def freeze(self) -> None:
        """Stop the process and return once all its threads stand still, some microseconds later.

        Raises XiatbError when it is not there or does not stop within STOP_S; it then goes on.
        """
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + STOP_S
        while not _stopped(self.process[0]):
            if time.monotonic() > deadline:
                self.thaw()
                raise XiatbError(f"the guest's process {self.process[0]} does not stop")
            time.sleep(_LOOK_S)

    def thaw(self) -> None:
        """Let it go on; nothing happens when it is gone."""
        with contextlib.suppress(XiatbError):
            self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it, stopped or not; nothing happens when it is gone."""
        with contextlib.suppress(XiatbError):
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        pid, started = self.process
        if not pid:
            raise XiatbError("the guest's process is not known")
        try:
            handle = os.pidfd_open(pid)
        except OSError as error:
            raise XiatbError(f"the guest's process {pid} is gone: {error.strerror}") from None
        try:
            if _start_time(pid) != started:
                raise XiatbError(f"process {pid} is another one now")
            signal.pidfd_send_signal(handle, number)
        except OSError as error:
            raise XiatbError(f"the guest's process {pid}: {error.strerror}") from None
        finally:
            os.close(handle)


def _stopped(pid: int) -> bool:
    """Whether every thread is in state T (proc(5)); one that has ended stands still too."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX":
                return False
    return True


def _start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc(5)): start time in clock ticks since boot."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])
