"""Is this host able? Asked before anything is started; all reasons at once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from xiatb.errors import HostNotAbleError
from xiatb.fastpath import probe
from xiatb.fastpath.engine import object_path
from xiatb.lab.extensions import GuestManager
from xiatb.lab.plan import Plan
from xiatb.lab.runner import HostRunner, Runner

_ALWAYS = {
    "mnexec": "mininet",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "ip": "iproute2",
    "tc": "iproute2",
}
_GUESTS = {"libvirtd": "libvirt-daemon", "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}


def problems(plan: Plan, guests: GuestManager | None, runner: Runner | None = None) -> list[str]:
    """Reasons why this host cannot run the plan, one a line; empty when it can."""
    found = [] if os.geteuid() == 0 else ["not root"]
    wanted = {**_ALWAYS, **(_GUESTS if plan.guests else {})}
    for program, package in wanted.items():
        if _which(program) is None:
            found.append(f"no program {program} (Debian package {package})")
    if plan.guests and not Path("/dev/net/tun").exists():
        found.append("no /dev/net/tun: guests need taps (modprobe tun)")
    if os.geteuid() == 0 and not found and not _makes_veth(runner or HostRunner()):
        found.append("the kernel makes no veth in a new network namespace")
    if os.geteuid() == 0 and any(node.data_plane == "ebpf" for node in plan.nodes):
        loads, why = probe.available(object_path())
        found += [] if loads else [f"data_plane ebpf: {why}"]
    if guests is not None and plan.guests:
        found += guests.check(plan)
    return found


def require(plan: Plan, guests: GuestManager | None) -> None:
    """Raises HostNotAbleError (exit 4) that names everything this host lacks."""
    found = problems(plan, guests)
    if found:
        raise HostNotAbleError(
            f"this host cannot run {plan.lab}: {'; '.join(found)}", hint="run scripts/setup"
        )


def _which(program: str) -> str | None:
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    return shutil.which(program, path=path)


def _makes_veth(runner: Runner) -> bool:
    argv = [
        "unshare",
        "--net",
        "--",
        "ip",
        "link",
        "add",
        "name",
        "probe0",
        "type",
        "veth",
        "peer",
        "name",
        "probe1",
    ]
    return runner.run(argv, check=False).returncode == 0
