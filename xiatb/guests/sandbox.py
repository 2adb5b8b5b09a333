"""Finds out whether QEMU runs here with its system calls filtered (seccomp), by doing it.

That takes a QEMU built with libseccomp and a kernel with filters, neither of which a container need have.
The options are those that libvirt gives QEMU for `seccomp_sandbox = 1`: QEMU may start no program, gain no
rights, change no priorities and make none of the old system calls (qemu(1), -sandbox).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from xiatb.guests import accel

OPTIONS = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
DEADLINE = 20.0
_FILTER = re.compile(r"^Seccomp:\t2$", re.MULTILINE)


@functools.cache
def works() -> tuple[bool, str]:
    """Whether a boot sector runs in a QEMU with the filter, and if not why not; asked once a process. Raises
    HostNotAbleError without QEMU."""
    return accel.boots("tcg", DEADLINE, ("-sandbox", OPTIONS))


def filtered(pid: int) -> bool:
    """Whether the process runs with a filter now: "Seccomp: 2" in /proc/PID/status (proc(5))."""
    try:
        return _FILTER.search(Path(f"/proc/{pid}/status").read_text(encoding="utf-8")) is not None
    except OSError:
        return False
