"""The baseline: libvirt's own migration over TCP, between the hypervisors' IPv4 addresses.

No daemon and no relay takes part: the source's libvirtd speaks to the destination's (qemu+tcp), QEMU to QEMU.
The lab's supervisor asks for it, makes room for the disk, watches both hypervisors' events, steers with the
same controller as a migration over XIA, and moves the guest's IPv4 route when the guest resumes: an ideal
control plane, whose change is at all routers of the AD at once. The result has the keys of a migration over
XIA.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from xiatb.errors import XiatbError
from xiatb.guests.libvirtd import uri
from xiatb.lab import baselinenet
from xiatb.lab.baseline import Baseline
from xiatb.lab.extensions import LabContext
from xiatb.lab.namespaces import inside
from xiatb.migration import hosting, params
from xiatb.migration.driver import Driver, DriverError, GuestEvent
from xiatb.migration.facts import identity_of, request_for
from xiatb.migration.messages import Disk, Request
from xiatb.migration.options import Options
from xiatb.migration.steering import Steering, bounds_of
from xiatb.node.control_protocol import ControlError

log = logging.getLogger("xiatb.migration")
LIBVIRT_PORT = 16509
POLL_S = 0.1
CANCELLED = "cancelled by the user"
RESUME_S = 10.0
"""Longest wait for RESUME after libvirt's call has returned; normally it has come long before."""
Emit = Callable[[dict[str, Any]], None]


class TcpMigration:
    """One migration from `source` to `to`, hypervisors of a lab with the IP baseline."""

    def __init__(
        self, context: LabContext, guest: str, source: str, to: str, options: Options, emit: Emit
    ) -> None:
        baseline = context.plan.baseline
        assert baseline is not None  # noqa: S101 - the manager has refused other labs
        self._baseline: Baseline = baseline
        self._context = context
        self._guest = context.plan.guest(guest)
        self._source, self._to = source, to
        self._options = options
        self._emit = emit
        self._here: Driver | None = None
        self._there: Driver | None = None
        self._resumed = asyncio.Event()
        self._cancelled = False
        self._phases: list[dict[str, Any]] = []
        self._passes: list[dict[str, int]] = []
        self._states: list[dict[str, Any]] = []
        self._stamps = dict.fromkeys(("request", "stop", "resume", "attached", "commit"), 0)
        self._last: dict[str, Any] = {}
        self._steps: set[asyncio.Future[Any]] = set()
        self._steering: Steering | None = None

    async def run(self, storage: bool) -> dict[str, Any]:
        """Move the guest; its result. Raises ControlError: the guest then runs on where it was."""
        here = Driver(uri(self._root(self._source)), self._source_event)
        there = Driver(uri(self._root(self._to)), self._destination_event)
        self._here, self._there = here, there
        try:
            await here.open()
            await there.open()
            request = await self._request(here, there, storage)
            self._phase("transfer")
            self._stamps["request"] = time.monotonic_ns()
            await self._move(here, request)
            self._stamps["commit"] = time.monotonic_ns()
            stats = await there.completed_stats(self._guest.name)
            arrived = await self._disk_bytes(request)
            if self._steps:
                await asyncio.wait(set(self._steps), timeout=RESUME_S)
            leftover = hosting.remove_disks(self._outside(self._source, request.disks) if storage else ())
            self._phase("done")
            return self._result(request, stats or self._last, arrived, leftover)
        finally:
            await here.close()
            await there.close()

    def cancel(self) -> bool:
        """Have it aborted (`_watch`), from any thread; False when it is too late."""
        if self._stamps["resume"]:
            return False
        self._cancelled = True
        return True

    async def _request(self, here: Driver, there: Driver, storage: bool) -> Request:
        """What is to be moved; the destination is asked for no more than that it lacks the guest."""
        name = self._guest.name
        facts = await here.guest(name)
        if facts is None:
            raise ControlError("not-running", f"guest {name} is not running on {self._source}")
        if (state := await there.state(name)) != "absent":
            raise ControlError("guest-exists", f"{self._to} already has a guest named {name} ({state})")
        disks = []
        for target, path, form in facts.disks:
            seen = await hosting.inspect_disk(target, str(self._path(self._source, path)), form)
            disks.append(dataclasses.replace(seen, path=path))
            exists = self._path(self._to, path).exists()
            if exists == storage:
                word = "already has a file" if exists else "does not have"
                raise ControlError("disk-missing", f"{self._to} {word} {path}")
        identity = identity_of(self._context.paths.root / "guests", name)
        return request_for(
            secrets.token_hex(4), facts, identity, tuple(disks),
            storage=storage and bool(disks), options=self._options,
        )  # fmt: skip

    async def _move(self, here: Driver, request: Request) -> None:
        made: tuple[Disk, ...] = ()
        watch: asyncio.Future[None] | None = None
        try:
            if request.storage:
                self._phase("storage")
                made = self._outside(self._to, request.disks)
                for disk in made:
                    await hosting.create_disk(disk)
            if self._cancelled:
                raise ControlError("cancelled", CANCELLED)
            watch = asyncio.ensure_future(self._watch(here))
            target = self._baseline.node(self._to).address
            await here.migrate(
                request.guest, f"qemu+tcp://{target}/system", tcp_parameters(request, target, self._options),
                params.migration_flags(request, self._options),
            )  # fmt: skip
            async with asyncio.timeout(RESUME_S):
                await self._resumed.wait()
        except (XiatbError, TimeoutError) as error:
            if isinstance(error, DriverError) and await self._has_moved():
                return
            hosting.remove_disks(made)
            if self._resumed.is_set():
                baselinenet.place_guest(self._context.plan, self._guest, self._source)
            code = "cancelled" if self._cancelled else "failed"
            text = error.message if isinstance(error, XiatbError) else "the destination did not resume it"
            raise ControlError(code, text) from None
        finally:
            if watch is not None:
                watch.cancel()

    async def _has_moved(self) -> bool:
        """libvirt can fail at the very end, when the guest runs at its destination already."""
        assert self._here is not None and self._there is not None  # noqa: S101 - set by run
        try:
            states = [await one.state(self._guest.name) for one in (self._here, self._there)]
        except DriverError:
            return False
        return self._resumed.is_set() and states[0] in ("absent", "off") and states[1] == "running"

    def _source_event(self, event: GuestEvent) -> None:
        if event.guest != self._guest.name:
            return
        if event.kind == "STOP" and not self._stamps["stop"]:
            self._stamps["stop"] = event.t
            self._phase("switchover", event.t)
            self._do(lambda: self._ask_node(self._source, "guest_detach", hid=self._guest.hid))
        elif event.kind == "RESUME" and self._stamps["stop"]:  # it runs on here: failed or cancelled
            self._stamps["stop"] = 0
            self._do(lambda: self._expect(self._source))
        elif event.kind == "MIGRATION":
            status = str(event.data.get("status", ""))
            self._states.append({"status": status, "t_ns": event.t})
            if status == "active":
                self._phase("precopy", event.t)
        elif event.kind == "MIGRATION_PASS":
            self._passes.append({"pass": int(event.data.get("pass", 0)), "start_ns": event.t})

    def _destination_event(self, event: GuestEvent) -> None:
        if event.guest != self._guest.name or event.kind != "RESUME" or self._resumed.is_set():
            return
        self._stamps["resume"] = event.t
        self._resumed.set()
        baselinenet.place_guest(self._context.plan, self._guest, self._to)
        self._stamps["attached"] = time.monotonic_ns()
        self._do(lambda: self._expect(self._to))

    def _expect(self, node: str) -> None:
        self._ask_node(node, "guest_expect", hid=self._guest.hid, port=self._guest.tap)

    def _ask_node(self, node: str, op: str, **arguments: Any) -> None:
        """The guest is a XIA host as well: its node at either side is told, as in a migration over XIA."""
        try:
            self._context.ask_node(node, op, **arguments)
        except XiatbError as error:
            log.warning("%s of %s on %s: %s", op, self._guest.name, node, error.message)

    def _do(self, work: Callable[[], None]) -> None:
        step = asyncio.ensure_future(asyncio.to_thread(work))
        self._steps.add(step)
        step.add_done_callback(self._steps.discard)

    async def _watch(self, here: Driver) -> None:
        """Progress for the user and decisions of the controller, ten times a second."""
        name = self._guest.name
        self._steering = Steering(
            bounds_of(self._options), here, name,
            lambda: self._steps.add(asyncio.ensure_future(here.start_postcopy(name))), self._emit, name,
        )  # fmt: skip
        round_trip = await asyncio.to_thread(self._round_trip)
        began, before = time.monotonic(), 0
        while True:
            await asyncio.sleep(POLL_S)
            if self._cancelled:
                await here.abort(name)  # nothing happens before libvirt's job has begun
            stats = await here.job_stats(name)
            phase = self._phases[-1]["name"]
            self._last = stats or self._last
            moved, now = _moved(stats), time.monotonic()
            if phase == "precopy":
                ram = int(stats.get("memory_processed", 0))
                await self._steering.observe(stats, len(self._passes), ram, 0, round_trip, now)
            prefix = "disk" if phase == "storage" else "memory"
            self._emit({
                "event": "progress", "phase": phase, "pass": len(self._passes), "transferred": moved,
                "total": int(stats.get(f"{prefix}_total", 0)), "rate": int((moved - before) / (now - began)),
                "remaining": int(stats.get(f"{prefix}_remaining", 0)),
            })  # fmt: skip
            began, before = now, moved

    async def _disk_bytes(self, request: Request) -> int:
        """What the destination's disks hold now, as libvirt tells only how far it is in the virtual disk."""
        if not request.storage:
            return 0
        seen = [
            await hosting.inspect_disk(disk.target, disk.path, disk.format)
            for disk in self._outside(self._to, request.disks)
        ]
        return sum(disk.allocated for disk in seen)

    def _round_trip(self) -> float:
        """Seconds that connecting to the destination takes from the source; 0.0 when it does not answer."""
        target = (self._baseline.node(self._to).address, LIBVIRT_PORT)
        with inside(Path(f"/proc/{self._context.node_pid(self._source)}/ns/net")):
            began = time.monotonic()
            try:
                socket.create_connection(target, timeout=5).close()
            except OSError:
                return 0.0
            return time.monotonic() - began

    def _phase(self, name: str, t: int = 0) -> None:
        if self._phases and self._phases[-1]["name"] == name:
            return
        self._phases.append({"name": name, "start_ns": t or time.monotonic_ns()})
        self._emit({"event": "phase", "phase": name, "t_ns": self._phases[-1]["start_ns"]})

    def _root(self, node: str) -> Path:
        return Path(f"/proc/{self._context.node_pid(node)}/root")

    def _path(self, node: str, path: str) -> Path:
        return self._root(node) / path.lstrip("/")

    def _outside(self, node: str, disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
        return tuple(dataclasses.replace(disk, path=str(self._path(node, disk.path))) for disk in disks)

    def _result(
        self, request: Request, stats: dict[str, Any], disk: int, leftover: tuple[str, ...]
    ) -> dict[str, Any]:
        stamps = self._stamps
        downtime = (stamps["resume"] - stamps["stop"]) / 1e6 if stamps["stop"] else None
        return {
            "job": request.job,
            "guest": request.guest,
            "from": self._source,
            "to": self._to,
            "transport": "tcp",
            "storage": request.storage,
            "encrypted": False,
            "accel": request.accel,
            "total_ms": round((stamps["commit"] - stamps["request"]) / 1e6, 3),
            "downtime_ms": round(downtime, 3) if downtime is not None else None,
            **{f"t_{name}_ns": stamp for name, stamp in stamps.items()},
            "locator": self._baseline.address(request.guest, self._to),
            "passes": self._passes,
            "phases": self._phases,
            "qemu_states": self._states,
            "decisions": self._steering.done if self._steering is not None else [],
            "bytes_qemu": {
                "rpc": 0,
                "ram": int(stats.get("memory_processed", 0)),
                "nbd": disk,
            },
            "channels": {},
            "pages": {},
            "memory_bytes": request.memory,
            "disks_kept": [],
            "leftover": list(leftover),
            "note": "",
            "congestion": {},
        }


def tcp_parameters(request: Request, target: str, options: Options) -> dict[str, Any]:
    """libvirt's typed parameters: as over XIA, but memory and disk go to ports that the destination chooses
    on its IPv4 address `target`."""
    parameters = params.migration_parameters(request, Path("/nowhere"), options)
    parameters.pop(libvirt.VIR_MIGRATE_PARAM_DISKS_URI, None)
    if options.bandwidth:  # here libvirt caps disks, too: nothing of ours is in their way
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = options.bandwidth
    parameters[libvirt.VIR_MIGRATE_PARAM_URI] = f"tcp://{target}"
    parameters[libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS] = target
    return parameters


def _moved(stats: dict[str, Any]) -> int:
    return int(stats.get("memory_processed", 0)) + int(stats.get("disk_processed", 0))
