"""One hypervisor host as the manager sees it: its libvirtd process and the domains on it."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import libvirt

from xiatb.errors import XiatbError
from xiatb.guests import domain, libvirtd
from xiatb.guests.model import GuestRecord
from xiatb.lab.extensions import LabContext
from xiatb.lab.priority import GUEST, favour_processors, prioritised
from xiatb.lab.process import ProcessId, identify, stop_all
from xiatb.node.session import favour_session

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "stopping",
    libvirt.VIR_DOMAIN_SHUTOFF: "stopped",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
}


class HypervisorError(XiatbError):
    """libvirt on a hypervisor host refused or failed."""


class Hypervisor:
    """Hypervisor `name` whose private files are seen below `root` from outside."""

    def __init__(self, name: str, root: Path, *, listens: bool = False) -> None:
        """`listens`: libvirtd is configured to listen on TCP, too."""
        self.name = name
        self.root = root
        self._listens = listens
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: libvirt.virConnect | None = None

    def outside(self, path: str) -> Path:
        """The path from outside for `path` as the hypervisor sees it."""
        return self.root / path.lstrip("/")

    @property
    def daemon(self) -> str:
        """What the lab calls its libvirtd."""
        return f"libvirtd {self.name}"

    def start(self, context: LabContext) -> None:
        """Starts libvirtd and waits until it answers. One that is started again takes up the guests that its
        predecessor has left running."""
        log = context.paths.node(self.name) / "libvirtd.log"
        self._process = context.spawn(
            self.name, prioritised(libvirtd.argv(listens=self._listens), GUEST), what=self.daemon, log=log
        )
        favour_session(self._process.pid, GUEST)
        self._connection = libvirtd.wait_ready(self.root, self._process)

    def _open(self) -> libvirt.virConnect:
        if self._connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                if self._connection.isAlive():
                    return self._connection
        try:
            self._connection = libvirt.open(libvirtd.uri(self.root))
        except libvirt.libvirtError as error:
            raise HypervisorError(f"{self.name}: libvirtd does not answer: {error}") from error
        return self._connection

    def define_and_start(self, xml: str) -> None:
        """Makes the domain of `xml` persistent and starts it."""
        try:
            defined = self._open().defineXML(xml)
            defined.create()
        except libvirt.libvirtError as error:
            raise HypervisorError(f"{self.name}: cannot start the guest: {error}") from error
        for pid in libvirtd.qemu_pids(self.root, defined.UUIDString()):
            favour_processors(pid)

    def states(self) -> dict[str, str]:
        """uuid -> state of every domain of ours here; empty when libvirtd is gone."""
        try:
            return {
                one.UUIDString(): _STATES.get(one.state()[0], "unknown")
                for one in self._open().listAllDomains()
            }
        except (libvirt.libvirtError, HypervisorError):
            return {}

    def destroy(self, uuids: set[str]) -> None:
        """Ends and forgets the domains with these uuids that bear our mark."""
        for one in self._open().listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):
                if one.UUIDString() not in uuids or domain.owner_of(one.XMLDesc()) is None:
                    continue
                persistent = one.isPersistent()
                if one.isActive():
                    one.destroy()
                if persistent:
                    one.undefine()

    def stop(self, uuids: set[str]) -> None:
        """Ends libvirtd and whatever QEMU of these uuids it left."""
        left = [pid for uuid in uuids for pid in libvirtd.qemu_pids(self.root, uuid)]
        if self._connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.close()
            self._connection = None
        found: list[ProcessId] = [one for pid in left if (one := identify(pid)) is not None]
        if self._process is not None and (daemon := identify(self._process.pid)) is not None:
            found.append(daemon)
        stop_all(found, grace=5.0)

    def console_end(self, record: GuestRecord) -> str:
        """The last lines of the guest's console, for messages."""
        try:
            text = self.outside(record.console_log).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "empty"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-400:] or "empty"
