"""A hypervisor host of a lab, seen from outside its namespaces: files, processes, guests, attachments."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.lab.client import ask_node
from xiatb.lab.paths import LabPaths
from xiatb.lab.state import read_state

_VIRSH = ["virsh", "-q", "-c", "qemu:///system?socket=/run/libvirt/libvirt-sock"]
_KEPT = ("agent-", "qmp-")
_ENTER_S = 30.0


class HostView:
    """Host `name` of the lab at `paths`."""

    IMAGES = "var/lib/libvirt/images"

    def __init__(self, paths: LabPaths, name: str) -> None:
        self.name = name
        self._paths = paths
        self._holder = read_state(paths).nodes[name].shell.pid

    def path(self, inside: str) -> Path:
        """A file of the host."""
        return Path(f"/proc/{self._holder}/root") / inside

    def disk(self, guest: str) -> Path:
        """Where the guest's disk lies when it is here."""
        return self.path(self.IMAGES) / f"{guest}.qcow2"

    def qemu_pid(self, guest: str) -> int:
        """By libvirt's pid file; raises XiatbError when there is none."""
        try:
            return int(self.path(f"run/libvirt/qemu/{guest}.pid").read_text())
        except (OSError, ValueError):
            raise XiatbError(f"no QEMU of {guest} on {self.name}") from None

    def xml(self, guest: str) -> str:
        """libvirt's description of the running guest."""
        return self.path(f"run/libvirt/qemu/{guest}.xml").read_text()

    def enter(self, argv: list[str]) -> str:
        """Run a command in the host's mount and network namespaces; its output. XiatbError when it fails."""
        whole = ["nsenter", "-t", str(self._holder), "-m", "-n", "--", *argv]
        done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=_ENTER_S)
        if done.returncode:
            raise XiatbError(f"{self.name}: {' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def domains(self) -> dict[str, str]:
        """State and its reason of every guest that libvirt knows here, as virsh says them."""
        names = self.enter([*_VIRSH, "list", "--all", "--name"]).split()
        return {name: self.enter([*_VIRSH, "domstate", "--reason", name]).strip() for name in names}

    def virsh(self, *words: str) -> str:
        """What virsh answers; raises XiatbError."""
        return self.enter([*_VIRSH, *words])

    def qemus(self) -> list[int]:
        """All QEMU processes of the host, libvirt's or not."""
        own = os.readlink(f"/proc/{self._holder}/ns/mnt")
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if not entry.name.isdigit() or os.readlink(entry / "ns/mnt") != own:
                    continue
                if (entry / "comm").read_text().startswith("qemu-system"):
                    found.append(int(entry.name))
        return found

    def attached(self, hid: str) -> bool:
        """Whether the host's node has the guest with this HID attached."""
        hosts: list[dict[str, Any]] = ask_node(self._paths, self.name, "joined").get("hosts", [])
        return any(one.get("hid") == hid for one in hosts)

    def litter(self) -> list[str]:
        """Sockets and journal entries of migrations, files beside guests' disks."""
        sockets = [one.name for one in self.path("run/xtb").iterdir() if not one.name.startswith(_KEPT)]
        entries = [one.name for one in (self._paths.node(self.name) / "migrations").glob("job-*")]
        return [*sockets, *entries]
