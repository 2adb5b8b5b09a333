"""Guests in a lab's life: implements `xiatb.lab.extensions.GuestManager` over libvirt and the image.

A guest is defined and started on its home hypervisor; later it may be anywhere, so every question
asks all hypervisors. Disks lie on real disk below the hypervisor's /var/lib/libvirt/images.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import libvirt

from xiatb.errors import DeadlineError, HostNotAbleError, XiatbError
from xiatb.guests import accel, domain, guestconfig, image, libvirtd, qcow2, sandbox
from xiatb.guests.client import AgentClient
from xiatb.guests.hypervisor import Hypervisor
from xiatb.guests.model import AGENT_SOCKET, CONSOLE, GuestRecord, ServiceRecord, load_record
from xiatb.lab.extensions import LabContext
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import GuestPlan, Plan

READY_DEADLINE = 240.0
DISK = "/var/lib/libvirt/images/{guest}.qcow2"


class GuestError(XiatbError):
    """A guest did not do what it should."""


def record_path(paths: LabPaths, guest: str) -> Path:
    """The guest.json of `guest`."""
    return paths.guest(guest) / "guest.json"


def disk_path(paths: LabPaths, guest: GuestPlan) -> Path:
    """The guest's disk as its hypervisor sees it."""
    if guest.disk == "shared":
        return paths.shared_disks / f"{guest.name}.qcow2"
    return Path(DISK.format(guest=guest.name))


def make_record(
    plan: Plan, guest: GuestPlan, paths: LabPaths, built: image.Image, chosen: str
) -> GuestRecord:
    """The record of `guest` with disk image `built` and accelerator `chosen`."""
    services = tuple(
        ServiceRecord(
            name=service.name,
            kind=service.kind,
            sid=service.sid,
            key_path=str(paths.key(f"guest-{guest.name}-{service.name}")),
            options=dict(service.options),
        )
        for service in guest.services
    )
    return GuestRecord(
        name=guest.name,
        uuid=guest.uuid,
        hid=guest.hid,
        mac=guest.mac,
        mtu=guest.mtu,
        memory_mib=guest.memory_mib,
        vcpus=guest.vcpus,
        tap=guest.tap,
        disk_path=str(disk_path(paths, guest)),
        disk_bytes=int(built.manifest["disk_bytes"]),
        image_id=built.id,
        kernel=str(paths.guest(guest.name) / "vmlinuz"),
        initrd=str(paths.guest(guest.name) / "initrd"),
        agent_socket=AGENT_SOCKET.format(guest=guest.name),
        console_log=CONSOLE.format(guest=guest.name),
        home=guest.on,
        accel=chosen,
        lab=plan.lab,
        services=services,
        ip=plan.baseline.address(guest.name, guest.on) if plan.baseline else "",
    )


class LibvirtGuestManager:
    """The guest manager of one supervisor process."""

    def __init__(self, images: Path = image.IMAGES, capabilities: Path = libvirtd.CAPABILITIES) -> None:
        self._images = images
        self._capabilities = capabilities
        self._hypervisors: dict[str, Hypervisor] = {}
        self._lock = threading.Lock()

    def check(self, plan: Plan) -> list[str]:
        """Reasons why this host cannot run the plan's guests; empty when it can or there are none."""
        if not plan.guests:
            return []
        problems = [
            f"{program} is not installed; run scripts/setup"
            for program in (libvirtd.BINARY, domain.EMULATOR, "/usr/bin/qemu-img")
            if not Path(program).exists()
        ]
        if not Path("/dev/net/tun").exists():
            problems.append("/dev/net/tun is missing; load the tun module (modprobe tun)")
        if problems:
            return problems
        try:
            accel.choose(plan.accel)
        except HostNotAbleError as error:
            problems.append(error.message)
        return problems

    def prepare(self, context: LabContext) -> None:
        """Builds the image if the code changed, then writes every guest's files and its disk."""
        plan = context.plan
        if not plan.guests:
            return
        built = image.build(context.progress, self._images)
        chosen = accel.choose(plan.accel)
        for guest in plan.guests:
            record = make_record(plan, guest, context.paths, built, chosen)
            self._write_guest(context, guest, record, built)

    def _write_guest(
        self, context: LabContext, guest: GuestPlan, record: GuestRecord, built: image.Image
    ) -> None:
        directory = context.paths.guest(guest.name)
        context.owner.path(directory, what=f"files of guest {guest.name}")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(built.kernel, record.kernel)
        key = context.paths.key(f"guest-{guest.name}")
        files = guestconfig.config_files(record, key, context.paths.names, guest.seed, directory)
        guestconfig.write_initrd(built.initrd, files, Path(record.initrd))
        shared = guest.disk == "shared"
        disks = context.paths.shared_disks if shared else context.paths.private_disk(guest.on) / "images"
        target = disks / Path(record.disk_path).name
        context.owner.path(target, what=f"disk of guest {guest.name}")
        qcow2.check(built.root, "qcow2")
        disks.mkdir(mode=0o700, parents=True, exist_ok=True)
        argv = ["cp", "--reflink=auto", "--sparse=always", str(built.root), str(target)]
        if guest.disk == "overlay":
            above = ["-b", str(built.root), "-F", "qcow2"]
            argv = ["qemu-img", "create", "-q", "-f", "qcow2", *above, str(target)]
        context.runner.run(argv, timeout=120)
        record.save(record_path(context.paths, guest.name))

    def start_hypervisor(self, context: LabContext, node: str) -> None:
        """Starts libvirtd on `node` and waits until it answers."""
        host_uuid = context.plan.node(node).uuid
        if host_uuid is None:
            raise GuestError(f"{node} is no hypervisor host")
        root = Path(f"/proc/{context.node_pid(node)}/root")
        baseline = context.plan.baseline
        listen = baseline.node(node).address if baseline else ""
        hypervisor = Hypervisor(node, root, listens=bool(listen))
        filters, why_not = sandbox.works()
        libvirtd.prepare(root, host_uuid, self._capabilities, listen, sandbox=filters)
        how = "filtered" if filters else f"not filtered: {why_not}"
        context.progress(f"{node}: QEMU's system calls are {how}")
        libvirtd.make_monitors(root, [guest.name for guest in context.plan.guests])
        hypervisor.start(context)
        libvirtd.keep_capabilities(root, self._capabilities)
        with self._lock:
            self._hypervisors[node] = hypervisor

    def ended(self, context: LabContext, what: str) -> None:
        """See lab.extensions.GuestManager: a libvirtd that has died is replaced."""
        with self._lock:
            died = [one for one in self._hypervisors.values() if one.daemon == what]
        for hypervisor in died:
            hypervisor.start(context)

    def start_guest(self, context: LabContext, guest: str) -> None:
        """Defines and starts `guest` on its home; returns when its agent and services are up."""
        record = load_record(record_path(context.paths, guest))
        hypervisor = self._hypervisor(record.home)
        hypervisor.define_and_start(domain.domain_xml(record))
        context.progress(f"guest {guest}: booting on {record.home} ({record.accel})")

        def alive() -> None:
            if hypervisor.states().get(record.uuid) != "running":
                raise GuestError(f"guest {guest} stopped while booting: {hypervisor.console_end(record)}")

        client = AgentClient(lambda: hypervisor.outside(record.agent_socket))
        try:
            state = client.wait_ready(READY_DEADLINE, alive)
        except XiatbError as error:
            text = f"guest {guest}: {error.message}; console: {hypervisor.console_end(record)}"
            kind = DeadlineError if isinstance(error, DeadlineError) else GuestError
            raise kind(text) from error
        failed = [
            f"{name}: {s['message']}" for name, s in state["services"].items() if s["state"] == "failed"
        ]
        if failed:
            raise GuestError(f"guest {guest}: services failed: {'; '.join(failed)}")
        context.progress(f"guest {guest}: ready")

    def _hypervisor(self, node: str) -> Hypervisor:
        with self._lock:
            found = self._hypervisors.get(node)
        if found is None:
            raise GuestError(f"libvirtd is not running on {node}")
        return found

    def _all(self) -> list[Hypervisor]:
        with self._lock:
            return list(self._hypervisors.values())

    def where(self, context: LabContext, guest: str) -> tuple[Hypervisor, GuestRecord, str]:
        """(hypervisor, record, state) of `guest` now: where it runs, else where it is paused, else where
        it is defined. Raises GuestError when no hypervisor knows it."""
        record = load_record(record_path(context.paths, guest))
        found: list[tuple[int, Hypervisor, str]] = []
        for hypervisor in self._all():
            state = hypervisor.states().get(record.uuid)
            if state is not None:
                rank = 0 if state == "running" else 2 if state == "stopped" else 1
                found.append((rank, hypervisor, state))
        if not found:
            raise GuestError(f"guest {guest} is on no hypervisor")
        _, hypervisor, state = min(found, key=lambda entry: entry[0])
        return hypervisor, record, state

    def client(self, context: LabContext, guest: str) -> AgentClient:
        """A client of the guest's agent that follows the guest."""
        if guest not in {one.name for one in context.plan.guests}:
            raise GuestError(f"there is no guest {guest!r}")

        def locate() -> Path:
            hypervisor, record, state = self.where(context, guest)
            if state == "stopped":
                raise GuestError(f"guest {guest} is not running")
            return hypervisor.outside(record.agent_socket)

        return AgentClient(locate)

    def agent(
        self, context: LabContext, guest: str, request: dict[str, Any], timeout: float
    ) -> dict[str, Any]:
        """The result of one agent request (docs/agent-protocol.md) where the guest is now."""
        return self.client(context, guest).request(request, timeout)

    def exec(
        self,
        context: LabContext,
        guest: str,
        argv: Sequence[str],
        emit: Callable[[str, bytes], None],
        timeout: float,
    ) -> int:
        """Runs `argv` in the guest; its output goes to `emit` as it comes; gives the exit code."""
        return self.client(context, guest).execute(argv, emit, timeout)

    def status(self, context: LabContext) -> dict[str, dict[str, Any]]:
        """guest -> state, hypervisor (None when on none), home, memory, accelerator."""
        states = {hypervisor.name: hypervisor.states() for hypervisor in self._all()}
        result: dict[str, dict[str, Any]] = {}
        for guest in context.plan.guests:
            places = [(name, known[guest.uuid]) for name, known in states.items() if guest.uuid in known]
            places.sort(key=lambda place: (place[1] != "running", place[1] == "stopped"))
            on, state = places[0] if places else (None, "absent")
            entry: dict[str, Any] = {"state": state, "on": on, "home": guest.on}
            entry["memory_mib"] = guest.memory_mib
            with contextlib.suppress(XiatbError):
                entry["accel"] = load_record(record_path(context.paths, guest.name)).accel
            if on is not None:
                pids = libvirtd.qemu_pids(Path(f"/proc/{context.node_pid(on)}/root"), guest.uuid)
                entry["sandbox"] = bool(pids) and all(map(sandbox.filtered, pids))
            result[guest.name] = entry
        return result

    def stop(self, context: LabContext) -> None:
        """Destroys the lab's guests wherever they are, then ends the daemons. Never fails because
        something is gone."""
        uuids = {guest.uuid for guest in context.plan.guests}
        for hypervisor in self._all():
            with contextlib.suppress(XiatbError, libvirt.libvirtError):
                hypervisor.destroy(uuids)
        for hypervisor in self._all():
            hypervisor.stop(uuids)
        with self._lock:
            self._hypervisors.clear()
