"""Who gets the host's processors first when they do not suffice.

In the network that a lab emulates, links, routers, guests and clients have processors of their own; here they
share a few. So the emulated network comes first (delay lines run in real time anyway), then measuring
clients and guests, and bulk work of the hypervisors, such as a migration's, gets what is left.
Without the privilege nice(1) says so and runs the command all the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from xiatb.node.session import favour_session

NETWORK = -12
MEASUREMENT = -10
GUEST = -6
PROCESSOR = -9
"""The virtual processors of a guest, before the threads and the libvirtd that serve them: what a guest's
clients wait for is its processor, above all just after a move, when QEMU and libvirtd are busy, too."""


def prioritised(argv: Sequence[str], niceness: int) -> list[str]:
    """`argv` to be run at `niceness` (-20 first to 19 last, see setpriority(2)); the pid stays the same."""
    return ["nice", "-n", str(niceness), *argv]


def favour_processors(pid: int) -> int:
    """Gives the session of the QEMU process `pid` the niceness GUEST and, in it, the virtual processors (its
    threads "CPU n/KVM" or "CPU n/TCG", see QEMU's accel/) the niceness PROCESSOR; how many processors got it.
    0 without the privilege or the process."""
    favour_session(pid, GUEST)
    return _schedule_processors(pid, os.SCHED_OTHER, 0)


def hurry_processors(pid: int) -> int:
    """Lets the virtual processors of the QEMU process `pid` run before every process of the host that is not
    real-time itself (SCHED_RR, sched(7); delay lines still come first), until `favour_processors` ends that;
    how many do. For moments only: a busy guest would leave nothing of a processor to others."""
    return _schedule_processors(pid, os.SCHED_RR, 1)


def _schedule_processors(pid: int, policy: int, priority: int) -> int:
    done = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "comm").read_text().startswith("CPU "):
                os.sched_setscheduler(int(task.name), policy, os.sched_param(priority))
                os.setpriority(os.PRIO_PROCESS, int(task.name), PROCESSOR)
                done += 1
    return done
