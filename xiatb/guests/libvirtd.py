"""One libvirtd per hypervisor host: its files, its life, its connections.

Recipe of migration.md section 5.1 (monolithic libvirtd 9, root, no systemd, no D-Bus, no cgroups).
All paths are the private ones of the hypervisor's mount namespace; from outside they are reached
below `root`, which is /proc/<pid of the node's shell>/root.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import libvirt

from xiatb.errors import DeadlineError, HostNotAbleError, XiatbError

BINARY = "/usr/sbin/libvirtd"
CONFIG = "/etc/libvirt/libvirtd.conf"
SOCKET = "run/libvirt/libvirt-sock"
PID_FILE = "/run/libvirt/l.pid"
LOG = "var/log/libvirt/l.log"
CAPABILITIES = Path("/var/lib/xiatb/capabilities")
CAPABILITY_DIR = "var/cache/libvirt/qemu/capabilities"
MONITOR = "run/xtb/qmp-{guest}"
START_DEADLINE = 60.0
_POLL = 0.02


class LibvirtdError(XiatbError):
    """A hypervisor's libvirtd does not do what it should."""


def quiet_libvirt() -> None:
    """Keeps libvirt's client library from writing errors to stderr; they come as exceptions anyway."""
    libvirt.registerErrorHandler(lambda context, error: None, None)


def config_files(host_uuid: str, listen: str = "", *, sandbox: bool = False) -> dict[str, str]:
    """Path (relative to the private root) -> content of libvirt's configuration files.

    `listen`: the IPv4 address on which the daemon takes TCP without authentication, "" for nowhere; for the
    IP baseline, whose network is the lab's own. `sandbox`: QEMU's system calls are filtered (sandbox.py)."""
    tcp = f'listen_tcp = 1\nlisten_addr = "{listen}"\nauth_tcp = "none"' if listen else "listen_tcp = 0"
    daemon = f"""listen_tls = 0
{tcp}
unix_sock_dir = "/run/libvirt"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
log_filters = "1:qemu.qemu_migration 3:*"
log_outputs = "1:file:/{LOG}"
ovs_timeout = 5
max_clients = 50
keepalive_interval = -1
"""
    qemu = f"""user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
seccomp_sandbox = {int(sandbox)}
stdio_handler = "file"
keepalive_interval = -1
max_core = 0
"""
    return {"etc/libvirt/libvirtd.conf": daemon, "etc/libvirt/qemu.conf": qemu}


def argv(*, listens: bool = False) -> list[str]:
    """The command of a daemon in the foreground, to be run in the hypervisor's namespaces; `listens`: on TCP,
    as its configuration says."""
    return [BINARY, "--config", CONFIG, "--pid-file", PID_FILE, *(["--listen"] if listens else [])]


def capability_key() -> str:
    """Identifies what libvirt's capability cache depends on: the binaries and the kernel."""
    total = hashlib.sha256(platform.release().encode())
    for binary in (BINARY, "/usr/bin/qemu-system-x86_64"):
        try:
            facts = os.stat(binary)
        except OSError as error:
            raise HostNotAbleError(f"{binary} is not installed", hint="run scripts/setup") from error
        total.update(f"{binary} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}".encode())
    return total.hexdigest()[:16]


def prepare(
    root: Path, host_uuid: str, capabilities: Path = CAPABILITIES, listen: str = "", *, sandbox: bool = False
) -> None:
    """Writes the configuration and seeds the capability cache below the private `root`; `listen` and
    `sandbox` as in `config_files`."""
    for name, text in config_files(host_uuid, listen, sandbox=sandbox).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in (
        "etc/libvirt/qemu/networks",
        "run/libvirt",
        "run/xtb",
        "var/log/libvirt",
        "var/lib/libvirt/images",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    known = capabilities / capability_key()
    target = root / CAPABILITY_DIR
    if known.is_dir() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(known, target)


def make_monitors(root: Path, guests: Iterable[str]) -> None:
    """Makes the pipes of each guest's second monitor below the private `root`. QEMU opens them (its chardev
    `pipe`), so they must be there wherever a guest may start or come in."""
    for guest in guests:
        for end in ("in", "out"):
            path = root / f"{MONITOR.format(guest=guest)}.{end}"
            if not path.is_fifo():
                os.mkfifo(path, 0o600)


def keep_capabilities(root: Path, capabilities: Path = CAPABILITIES) -> None:
    """Keeps what a running daemon has found out about QEMU for the next daemons; atomic."""
    source = root / CAPABILITY_DIR
    target = capabilities / capability_key()
    if target.exists() or not any(source.glob("*.xml")):
        return
    capabilities.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=capabilities))
    try:
        shutil.copytree(source, scratch / "x")
        with contextlib.suppress(OSError):  # another lab was quicker
            (scratch / "x").rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def uri(root: Path) -> str:
    """The libvirt URI of the daemon below `root`, for a client outside its namespaces."""
    return f"qemu:///system?socket={root / SOCKET}"


def wait_ready(
    root: Path, process: subprocess.Popen[bytes], deadline: float = START_DEADLINE
) -> libvirt.virConnect:
    """An open connection to the daemon that `process` is, as soon as it answers.

    Raises LibvirtdError when the process ends first, DeadlineError after `deadline` seconds.
    """
    quiet_libvirt()
    end = time.monotonic() + deadline
    while True:
        if process.poll() is not None:
            raise LibvirtdError(f"libvirtd ended with {process.returncode}: {last_words(root)}")
        if (root / SOCKET).exists():
            try:
                connection = libvirt.open(uri(root))
            except libvirt.libvirtError as error:
                problem = str(error)
            else:
                connection.getCapabilities()
                return connection
        else:
            problem = "no socket yet"
        if time.monotonic() >= end:
            raise DeadlineError(
                f"libvirtd does not answer after {deadline:g} s: {problem}; {last_words(root)}"
            )
        pause(process, _POLL)


def pause(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Waits `seconds`, less when `process` ends before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def last_words(root: Path) -> str:
    """The last error line in the daemon's log, for messages."""
    try:
        lines = (root / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it left no log"
    errors = [line for line in lines if ": error :" in line]
    return (errors or lines or ["its log is empty"])[-1]


@contextlib.contextmanager
def connection(root: Path) -> Iterator[libvirt.virConnect]:
    """A connection to the daemon below `root` for the length of a `with`. Raises LibvirtdError."""
    quiet_libvirt()
    try:
        opened = libvirt.open(uri(root))
    except libvirt.libvirtError as error:
        raise LibvirtdError(f"no connection to libvirtd at {root / SOCKET}: {error}") from error
    try:
        yield opened
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            opened.close()


def qemu_pids(root: Path, uuid: str) -> list[int]:
    """Pids of QEMU processes of the guest `uuid` by the pid files below the private `root`; each is checked
    by the uuid on its command line."""
    found = []
    for path in (root / "run/libvirt/qemu").glob("*.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text(encoding="ascii"))
            if uuid.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
