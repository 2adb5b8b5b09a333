"""How much of the processors a whole session gets.

Where the kernel groups processes by session (sched(7), "The autogroup feature"; the default of Debian's
kernels), a nice value counts only among the processes of one session, and every process of a lab leads a
session of its own: without a niceness of their groups all of them would get the same share.
"""

from __future__ import annotations

import os
from pathlib import Path

ENABLED = Path("/proc/sys/kernel/sched_autogroup_enabled")


def grouped() -> bool:
    """True when the kernel shares processors out among sessions first."""
    try:
        return ENABLED.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def favour_session(pid: int, niceness: int) -> bool:
    """Gives the group of the session of process `pid` the niceness (-20 first to 19 last).

    Only where the session is its own: `pid` leads it, or its leader has gone, as that of a daemon has that
    forked once more (libvirtd's QEMUs; the kernel keeps the leader's number from others for as long as the
    session lives). False for others' sessions, without the privilege, when the process is gone, or when the
    kernel does not group sessions."""
    try:
        session = os.getsid(pid)
        if not grouped() or not (session == pid or _is_gone(session)):
            return False
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness), encoding="ascii")
    except OSError:
        return False
    return True


def _is_gone(leader: int) -> bool:
    """0 is a leader outside of this process's pid namespace: there, but not seen from here."""
    return leader != 0 and not Path(f"/proc/{leader}").exists()
