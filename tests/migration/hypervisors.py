"""Two throw-away hypervisor hosts for guest tests: libvirtd in its own network and mount namespaces, a
migration daemon beside it, and a guest that is one boot sector and counts on its serial port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xiatb.guests import sandbox
from xiatb.guests.libvirtd import CAPABILITIES, CAPABILITY_DIR, capability_key
from xiatb.guests.model import CONSOLE
from xiatb.identity.keys import KeyPair
from xiatb.migration.config import DaemonConfig, Peer
from xiatb.wire.xid import XidType

# Real mode: writes a counter to 32 pages from 0x10000 on; every 16384 rounds prints (counter >> 14) & 255
# in hex.
BOOT = bytes.fromhex(
    "fa31c08ed88ec08ed0bc00706631dbb800108ec02666891e00000500013d003072f0664366f7c3ff3f000075e2"
    "6689d966c1e90ebaf80388c8c0e804e80c0088c8240fe80500b00aeeebc404303c3976020427eec3"
)
# Real mode with 4 GiB segments: fills memory from 1 MiB on with the words of a linear congruential generator,
# as many as the four bytes at FILL_WORDS say, then runs on into BOOT.
FILL = bytes.fromhex(
    "fa31c08ed80f0116557ce4920c02e6920f20c00c010f22c0eb00bb08008edb24fe0f22c031db8edb66bf0000100066b878563412"
    "66b9443322116669c00d66190066055ff36e3c676689076683c704664975e7eb160f005b7c00000000000000000000ffff000000"
    "92cf00"
)
FILL_WORDS = FILL.index(bytes.fromhex("44332211"))
LIBVIRTD_CONF = 'listen_tls = 0\nunix_sock_rw_perms = "0700"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\n'
QEMU_CONF = (
    'user = "root"\ngroup = "root"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = "none"\n'
    'namespaces = []\ncgroup_controllers = []\nseccomp_sandbox = {}\nstdio_handler = "file"\n'
)
DAEMON_S = 30.0
SILENCE_S = 120.0
"""Longest time without a word of a daemon: that of a phase that tells of no progress, and more."""
PRIVATE = ("/run", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/etc/libvirt")
XML = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory
unit='MiB'>{mib}</memory><vcpu>1</vcpu> <os><type arch='x86_64'
machine='pc-q35-7.2'>hvm</type></os><features><acpi/><apic/></features> <devices><controller type='usb'
model='none'/><memballoon model='none'/> <disk type='file' device='disk'><driver name='qemu'
type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk> <serial type='file'><source
path='/var/log/libvirt/console-{name}.log' append='on'/></serial></devices></domain>"""  # noqa: E501


class Hypervisor:
    """One host. libvirtd starts with what it has found out about QEMU before, if scripts/setup has kept it:
    finding it out takes 15 s."""

    def __init__(self, name: str, base: Path) -> None:
        self.name = name
        self.base = base
        self.key = KeyPair.generate()
        self.sid = self.key.xid(XidType.SID)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.holder = 0

    @property
    def socket(self) -> Path:
        return self.base / f"{self.name}.migrated"

    @property
    def carrier(self) -> Path:
        return self.base / f"{self.name}.xia"

    def enter(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder), "-n", "-m", "--", *argv]

    def run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(self.enter(*argv), capture_output=True, text=True, check=False, timeout=60)
        if check and done.returncode:
            raise RuntimeError(f"{argv}: {done.stderr}")
        return done.stdout

    def start_libvirtd(self) -> None:
        holder = subprocess.Popen(["unshare", "-n", "-m", "--propagation", "private", "sleep", "infinity"])
        self._processes.append(holder)
        self.holder = holder.pid
        wait_for(lambda: Path(f"/proc/{holder.pid}/comm").read_text().strip() == "sleep", 5, "unshare")
        for place in PRIVATE:
            self.run("mkdir", "-p", place)
            self.run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place)
        self.run(
            "mkdir", "-p", "/run/libvirt", "/run/xtb", "/var/lib/libvirt/images", "/etc/libvirt/qemu/networks"
        )
        self.run("ip", "link", "set", "lo", "up")
        if (known := CAPABILITIES / capability_key()).is_dir():
            shutil.copytree(known, self.file(f"/{CAPABILITY_DIR}"))
        self.write("/etc/libvirt/libvirtd.conf", LIBVIRTD_CONF + f'host_uuid = "{uuid.uuid4()}"\n')
        self.write("/etc/libvirt/qemu.conf", QEMU_CONF.format(int(sandbox.works()[0])))
        self.spawn("libvirtd", "/usr/sbin/libvirtd", "--config", "/etc/libvirt/libvirtd.conf", "--pid-file",
                   "/run/libvirt/l.pid")  # fmt: skip

    def wait_libvirtd(self) -> None:
        wait_for(
            lambda: self.file("/run/libvirt/libvirt-sock").exists(),
            20,
            "libvirtd's socket",
        )

    def file(self, path: str) -> Path:
        """A file of this host, from outside."""
        return Path(f"/proc/{self.holder}/root{path}")

    def write(self, path: str, text: str) -> None:
        self.file(path).write_text(text)

    def spawn(
        self, what: str, *argv: str, env: dict[str, str] | None = None, fds: tuple[int, ...] = ()
    ) -> None:
        log = (self.base / f"{self.name}.{what}.log").open("ab")
        self._processes.append(
            subprocess.Popen(
                self.enter(*argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        )

    def start_daemon(self, peers: list[Hypervisor]) -> None:
        self._peers = peers
        pem = self.base / f"{self.name}.pem"
        self.key.save(pem, overwrite=True)
        config = DaemonConfig(
            lab="t",
            host=self.name,
            key=pem,
            state_dir=self.base / self.name,
            socket=self.socket,
            carrier="unix",
            listen=str(self.carrier),
            peers={p.name: Peer(p.name, p.sid, str(p.carrier)) for p in peers},
        )
        path = self.base / f"{self.name}.json"
        path.write_text(json.dumps(config.to_json()))
        reader, writer = os.pipe()
        self.spawn("migrated", sys.executable, "-m", "xiatb.migration.daemon", str(path),
                   env={"XIATB_READY_FD": str(writer)}, fds=(writer,))  # fmt: skip
        self.daemon = self._processes[-1]
        os.close(writer)
        with os.fdopen(reader) as ready:
            if not select.select([ready], [], [], DAEMON_S)[0]:
                raise TimeoutError(f"{self.name}'s daemon is not ready: {self.log('migrated')}")
            line = json.loads(ready.readline() or '{"ready": false}')
        if not line["ready"]:
            raise RuntimeError(f"{line} {self.log('migrated')}")

    def restart_daemon(self) -> None:
        self.start_daemon(self._peers)

    def kill_daemon(self) -> None:
        """Ends it as a crash does, and waits until it is gone."""
        self.daemon.kill()
        self.daemon.wait(10)

    def stop_daemon(self) -> None:
        """Ends it in order."""
        self.daemon.terminate()
        self.daemon.wait(30)

    def log(self, what: str) -> str:
        return (self.base / f"{self.name}.{what}.log").read_text()

    def virsh(self, *argv: str, check: bool = True) -> str:
        return self.run(
            "virsh", "-q", "-c", "qemu:///system?socket=/run/libvirt/libvirt-sock", *argv, check=check
        )

    def start_guest(
        self, name: str, *, mib: int = 64, disk_mib: int = 16, fill_mib: int = 0, backing: str = ""
    ) -> str:
        """`fill_mib` of its memory are not zero; with `backing` its disk is an overlay on that path."""
        words = (fill_mib << 18).to_bytes(4, "little")
        boot = FILL[:FILL_WORDS] + words + FILL[FILL_WORDS + 4 :] + BOOT if fill_mib else BOOT
        raw = self.base / f"{name}.raw"
        raw.write_bytes(boot.ljust(510, b"\0") + b"\x55\xaa" + os.urandom((disk_mib << 20) - 512))
        disk = f"/var/lib/libvirt/images/{name}.qcow2"
        if backing:
            self.run("cp", str(raw), backing)
            self.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "raw", disk)
        else:
            self.run("qemu-img", "convert", "-O", "qcow2", str(raw), disk)
        self.write("/run/guest.xml", XML.format(name=name, uuid=uuid.uuid4(), mib=mib, disk=disk))
        self.virsh("define", "/run/guest.xml")
        self.virsh("start", name)
        return disk

    def define_only(self, name: str) -> None:
        """A guest of that name that does not run."""
        disk = f"/var/lib/libvirt/images/{name}.qcow2"
        self.write("/run/guest.xml", XML.format(name=name, uuid=uuid.uuid4(), mib=16, disk=disk))
        self.virsh("define", "/run/guest.xml")

    def forget(self, name: str) -> None:
        """End and remove a guest and its disk, if they are here. QEMU is killed: libvirt would wait 2 s."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self.file(f"/run/libvirt/qemu/{name}.pid").read_text()), signal.SIGKILL)
        self.virsh("destroy", name, check=False)
        self.virsh("undefine", name, check=False)
        console = CONSOLE.format(guest=name)
        self.run("rm", "-f", f"/var/lib/libvirt/images/{name}.qcow2", console)
        (self.base / f"{name}.raw").unlink(missing_ok=True)

    def litter(self) -> list[str]:
        """What of guests and migrations is left here: there must be nothing between two modules of tests."""
        left = [f"guest {name}" for name in self.virsh("list", "--all", "--name").split()]
        for place in ("/var/lib/libvirt/images", "/run/xtb"):
            left += [f"{place}/{name}" for name in self.run("ls", place).split()]
        left += [path.name for path in self.base.glob(f"{self.name}/migrations/*-source.json")]
        return left if self.daemon.poll() is None else [*left, f"daemon ended with {self.daemon.returncode}"]

    def console(self) -> str:
        """All that the guests of the moment have written on their serial ports here."""
        logs = self.file("/var/log/libvirt").glob(Path(CONSOLE.format(guest="*")).name)
        return "".join(path.read_text() for path in sorted(logs))

    def serial(self) -> list[int]:
        """The whole lines of it, as numbers."""
        return numbers(self.console())

    def stop(self) -> None:
        for line in self.virsh("list", "--name", check=False).split() if self.holder else []:
            self.virsh("destroy", line, check=False)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def numbers(text: str) -> list[int]:
    """The guest's counter on each whole line."""
    return [int(line, 16) for line in text.split("\n")[:-1] if line]


def wait_for(true: Any, seconds: float, what: str) -> None:
    """Waits until `true()` holds; TimeoutError with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError(what)


async def ask(socket: Path, on_event: Any = None, **request: Any) -> dict[str, Any]:
    """One request to a daemon; the final answer, events go to `on_event`. TimeoutError after a silence."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(json.dumps({"id": 1, **request}).encode() + b"\n")
    try:
        while line := await asyncio.wait_for(reader.readline(), SILENCE_S):
            message = json.loads(line)
            if "ok" in message:
                answer: dict[str, Any] = message
                return answer
            if on_event is not None:
                on_event(message)
    finally:
        writer.close()
    raise ConnectionResetError("the daemon closed the connection")


Hosts = tuple[Hypervisor, Hypervisor]


@contextlib.contextmanager
def pair(base: Path) -> Iterator[Hosts]:
    """Two hosts, libvirtd and daemons ready, with their files below `base`; nothing of them is left."""
    base.mkdir(parents=True)
    hosts = (Hypervisor("hv1", base), Hypervisor("hv2", base))
    try:
        for host in hosts:
            host.start_libvirtd()
        for host in hosts:
            host.wait_libvirtd()
        hosts[0].start_daemon([hosts[1]])
        hosts[1].start_daemon([hosts[0]])
        yield hosts
    finally:
        for host in hosts:
            host.stop()
        shutil.rmtree(base, ignore_errors=True)


def migrate(
    source: Hypervisor, guest: str, to: Hypervisor | str, on_event: Any = None, **more: Any
) -> dict[str, Any]:
    """With storage, unless `more` says otherwise; the daemon's answer."""
    name = to if isinstance(to, str) else to.name
    request = {"op": "migrate", "guest": guest, "to": name, "storage": True, **more}
    return asyncio.run(ask(source.socket, on_event, **request))


def at(phase: str, act: Callable[[], Any], event: int = 1) -> Callable[[dict[str, Any]], None]:
    """An `on_event` that acts once: at this event of the phase, counted from 1, which is its beginning."""
    seen: list[int] = []

    def watch(told: dict[str, Any]) -> None:
        if told.get("phase") == phase:
            seen.append(1)
            if len(seen) == event:
                act()

    return watch


def migrate_or_die(*asked: Any, **more: Any) -> dict[str, Any] | None:
    """As `migrate`; None when the daemon that was asked has died."""
    with contextlib.suppress(ConnectionError):
        return migrate(*asked, **more)
    return None


def counts_on(host: Hypervisor) -> None:
    """The guest makes progress here."""
    before = len(host.serial())
    wait_for(lambda: len(host.serial()) > before + 2, 20, f"the guest's progress on {host.name}")


def bare(host: Hypervisor, guest: str) -> None:
    """Nothing of the guest is left here."""
    wait_for(
        lambda: guest not in host.virsh("list", "--all", "--name").split(),
        15,
        f"{guest} gone from {host.name}",
    )
    wait_for(lambda: f"{guest}.qcow2" not in host.run("ls", "/var/lib/libvirt/images"), 15, "its disk gone")
    wait_for(lambda: host.run("ls", "/run/xtb") == "", 5, "its sockets gone")
