"""A stand-in for a lab: hypervisor hosts as plain namespaces with private directories and a tap each.

Everything is made under one temporary directory and unshared namespaces and goes with `close()`.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lines import next_line
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import GuestPlan, NodePlan, Plan, ServicePlan
from xiatb.lab.process import ProcessId, identify, in_netns, netns_inode, stop_all
from xiatb.lab.runner import HostRunner

PRIVATE = ("run/libvirt", "run/xtb", "var/lib/libvirt", "var/cache/libvirt", "var/log/libvirt", "etc/libvirt")
SETUP = """
set -e
mount --make-rprivate /
mkdir -p /run/libvirt /run/xtb /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt
for d in PRIVATE; do mount --bind "$1/$d" "/$d"; done
ip link set lo up
for t in $2; do ip tuntap add dev $t mode tap; ip link set $t mtu $3 up; done
echo ready
exec sleep infinity
""".replace("PRIVATE", " ".join(PRIVATE))


class NullOwner:
    def path(self, path: Path, *, what: str = "") -> None: ...
    def mount(self, path: Path, *, what: str = "") -> None: ...
    def process(self, pid: int, start: int, *, what: str = "") -> None: ...


class FakeLab:
    """Satisfies `LabContext` for the guest manager."""

    def __init__(self, hypervisors: Sequence[str], guests: Sequence[GuestPlan]) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="xiatb-fakelab-", dir="/var/tmp"))
        lab = f"fake{os.getpid()}{secrets.token_hex(2)}"
        self.paths = LabPaths(lab, self.base / "run", self.base / "disk")
        self.owner = NullOwner()
        self.runner = HostRunner()
        self.plan = Plan(
            lab=lab,
            seed=1,
            topology="",
            accel="tcg",
            data_plane="click",
            ads=(),
            nodes=tuple(_hypervisor(name, index) for index, name in enumerate(hypervisors)),
            links=(),
            guests=tuple(guests),
            names={},
        )
        self.messages: list[str] = []
        self._shells: dict[str, subprocess.Popen[bytes]] = {}
        self._processes: list[ProcessId] = []
        self._made_in_run = [d for d in (Path("/run/libvirt"), Path("/run/xtb")) if not d.exists()]
        for name in hypervisors:
            self._shells[name] = self._start(name, [guest.tap for guest in guests])

    def _start(self, name: str, taps: Sequence[str]) -> subprocess.Popen[bytes]:
        root = self.paths.private(name)
        for directory in PRIVATE:
            (root / directory).mkdir(parents=True)
        images = self.paths.private_disk(name)
        images.mkdir(parents=True)
        (root / "var/lib/libvirt").rmdir()
        (root / "var/lib/libvirt").symlink_to(images)
        argv = ["unshare", "--net", "--mount", "sh", "-c", SETUP, "sh", str(root), " ".join(taps), "1500"]
        shell = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert next_line(shell.stdout) == "ready"
        return shell

    def node_pid(self, node: str) -> int:
        return self._shells[node].pid

    def in_node(self, node: str, argv: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self.node_pid(node)), "-n", "-m", "--", *argv]

    def spawn(
        self,
        node: str,
        argv: Sequence[str],
        *,
        what: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                self.in_node(node, argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
            )
        self._processes.append(self.identify(process.pid))
        return process

    def identify(self, pid: int) -> ProcessId:
        found = identify(pid)
        assert found is not None
        return found

    def ask_node(self, node: str, op: str, *, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
        raise AssertionError("no node processes here")

    def progress(self, message: str) -> None:
        self.messages.append(message)

    def close(self) -> None:
        inodes = [inode for shell in self._shells.values() if (inode := netns_inode(shell.pid)) is not None]
        stop_all(self._processes)
        stop_all(in_netns(inodes), grace=0.0)
        for shell in self._shells.values():
            shell.kill()
            shell.wait(10)
            if shell.stdout is not None:
                shell.stdout.close()
        shutil.rmtree(self.base, ignore_errors=True)
        for directory in self._made_in_run:
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()


def _hypervisor(name: str, index: int) -> NodePlan:
    return NodePlan(
        name=name,
        index=index,
        kind="hypervisor",
        hid="HID:" + "0" * 40,
        ad=None,
        ad_name=None,
        ad_public=None,
        ad_cert=None,
        dag="",
        ports=(),
        seed=index,
        uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
    )


def a_guest(name: str, on: str, services: Sequence[ServicePlan] = ()) -> GuestPlan:
    """A guest plan with plain values."""
    return GuestPlan(
        name=name,
        index=0,
        uuid=str(uuid.uuid4()),
        on=on,
        hid="HID:" + "1" * 40,
        mac="52:54:00:aa:00:01",
        tap="tap0",
        mtu=1500,
        memory_mib=192,
        vcpus=1,
        dag="",
        seed=7,
        services=tuple(services),
    )


def wait(seconds: float) -> None:
    """Lets the guest work for a while."""
    select.select([], [], [], seconds)
