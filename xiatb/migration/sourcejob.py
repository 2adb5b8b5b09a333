"""One migration at its source: the machine's actions made real with libvirt, relays and the node process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from xiatb.migration import actions as a
from xiatb.migration import params
from xiatb.migration.channels import Dial, SourceChannels
from xiatb.migration.control_link import ControlLink
from xiatb.migration.driver import DriverError, GuestEvent
from xiatb.migration.hosting import remove_disks
from xiatb.migration.ledger import Entry
from xiatb.migration.messages import Channel, Progress, Request
from xiatb.migration.policy import DowntimeLimit
from xiatb.migration.progress import ProgressBoard
from xiatb.migration.qemustream import QemuStream
from xiatb.migration.shell import JobShell, log
from xiatb.migration.source import SourceMachine
from xiatb.migration.station import Station

POLL_S = 0.1
Emit = Callable[[dict[str, Any]], None]


class SourceJob(JobShell):
    """Runs until the guest has moved or the migration has failed; `result` then describes it.

    `emit` gets an event (a JSON object) for every phase and ten times a second while bytes flow.
    """

    machine: SourceMachine

    def __init__(
        self,
        request: Request,
        link: ControlLink,
        dial: Dial,
        station: Station,
        emit: Emit,
        bandwidth: int = 0,
    ) -> None:
        super().__init__(SourceMachine(request), link, f"job {request.job} ({request.guest} out)")
        self.request = request
        self.stream = QemuStream()
        self.passes: list[dict[str, int]] = []
        self.states: list[dict[str, Any]] = []
        self._dial = dial
        self._driver = station.driver
        self._node = station.node
        self._ledger = station.ledger
        self._runtime = station.config.runtime
        self._emit = emit
        self._bandwidth = bandwidth
        self._channels: SourceChannels | None = None
        self._board = ProgressBoard()
        self._limit = DowntimeLimit()
        self.limits: list[dict[str, int]] = []
        self._t_request = 0
        self._kept_disks: tuple[str, ...] = tuple(disk.path for disk in request.disks if request.storage)

    def cancel(self, reason: str) -> bool:
        """Stop the migration; False when it is too late."""
        accepted = self.machine.cancel(reason, time.monotonic())
        self.step()
        return accepted

    def on_guest_event(self, event: GuestEvent) -> None:
        """An event of the local hypervisor about this guest."""
        now = time.monotonic()
        if event.kind in ("STOP", "lifecycle:3:1"):  # SUSPENDED, MIGRATED
            self.machine.on_stopped(event.t, now)
        elif event.kind == "RESUME":
            self.machine.on_resumed_here(now)
        elif event.kind == "MIGRATION":
            self.states.append({"status": str(event.data.get("status", "")), "t_ns": event.t})
        elif event.kind == "MIGRATION_PASS":
            number = int(event.data.get("pass", 0))
            self.passes.append({"pass": number, "start_ns": event.t})
            if number > 1:
                self.stream.next_pass(event.t)
        self.step()

    def on_phase(self, name: str) -> None:
        """Tell the user; the request's time is the start of the admission phase."""
        if name == "admission":
            self._t_request = time.monotonic_ns()
        self._emit({"event": "phase", "phase": name, "t_ns": time.monotonic_ns()})

    def perform(self, action: a.Action) -> None:
        """See JobShell."""
        if isinstance(action, a.StartTransfer):
            self.spawn(self._transfer(action.channels))
            self.spawn(self._watch())
        elif isinstance(action, a.CancelTransfer):
            self.spawn(self._driver.abort(self.request.guest))
        elif isinstance(action, a.DetachGuest):
            self._node.detach(self.request.hid)
        elif isinstance(action, a.ReattachGuest):
            self._node.expect(self.request.hid, self.request.port)
        elif isinstance(action, a.DestroyHere):
            self.spawn(self._driver.destroy(self.request.guest))
        elif isinstance(action, a.RemoveDisks) and self.request.storage:
            self._kept_disks = remove_disks(self.request.disks)

    async def wind_up(self) -> None:
        """Close what the transfer opened."""
        if self._channels is not None:
            await self._channels.close()
            self._ledger.close(self.request.job)
        await self._node.settle()

    async def _transfer(self, granted: tuple[Channel, ...]) -> None:
        job, directory = self.request.job, self._runtime
        self._channels = SourceChannels(
            job, granted, self._link.session.channel_key, self._dial, {"ram": lambda: self.stream.feed},
            self._channel_open,
        )  # fmt: skip
        ok, reason = True, ""
        try:
            sockets = params.all_sockets(directory, job)
            self._ledger.open(Entry(job, self.request.guest, sockets=tuple(map(str, sockets))))
            self._channels.listen("rpc", params.rpc_socket(directory, job))
            self._channels.listen("ram", params.ram_socket(directory, job))
            if self.request.storage:
                self._channels.listen("nbd", params.disk_socket(directory, job))
            await self._driver.migrate(
                self.request.guest,
                params.destination_uri(directory, job),
                params.migration_parameters(self.request, directory, self._bandwidth),
                params.migration_flags(self.request),
            )
        except (DriverError, OSError) as error:
            ok, reason = False, str(error)
        if not ok:
            reason = await self._check_gone(reason)
            ok = not reason
        self.machine.on_transfer_done(ok, reason, time.monotonic())
        self.step()

    async def _check_gone(self, reason: str) -> str:
        """libvirt can fail after its Confirm (the job is lost, the guest moved): "" if the destination runs
        it."""
        try:
            state = await self._driver.state(self.request.guest)
        except DriverError:
            return reason
        if self.machine.t_resume and state in ("absent", "off"):
            log.warning("%s: libvirt said %r, but the guest has moved", self.name, reason)
            return ""
        return reason

    def _channel_open(self, kind: str, t: int) -> None:
        phase = {"nbd": "storage", "ram": "precopy"}.get(kind)
        if phase is not None:
            self.phases.append({"name": phase, "start_ns": t})
            self._board.phase = phase
            self._emit({"event": "phase", "phase": phase, "t_ns": t})

    async def _watch(self) -> None:
        """Progress for the user ten times a second, for the peer every other time."""
        turn = 0
        while self.outcome is None:
            await asyncio.sleep(POLL_S)
            if self.machine.state not in ("transfer", "switchover", "cancelling") or self._channels is None:
                continue
            await self._steer()
            stats = await self._driver.job_stats(self.request.guest)
            event = self._board.update(stats, self._channels.relays, len(self.passes), time.monotonic())
            self._emit(event)
            turn += 1
            if turn % 2 == 0 and self.outcome is None and not self.machine.lost:
                self._link.send(
                    Progress(
                        job=self.request.job, phase=event["phase"], passes=event["pass"],
                        transferred=event["transferred"], remaining=event["remaining"], rate=event["rate"],
                    )
                )  # fmt: skip

    async def _steer(self) -> None:
        """Set QEMU's downtime limit as the policy wants it, once memory is being copied."""
        if self._board.phase != "precopy" or self.machine.t_stop:
            return
        limit = self._limit.next(len(self.passes), time.monotonic())
        if limit is not None:
            await self._driver.set_downtime_limit(self.request.guest, limit)
            self.limits.append({"ms": limit, "t_ns": time.monotonic_ns()})

    def result(self) -> dict[str, Any]:
        """Everything measured, for the CLI and result.json. Times are monotonic nanoseconds, 0 when
        unknown."""
        machine = self.machine
        channels = self._channels.relays.report() if self._channels is not None else {}
        total = (machine.t_commit - self._t_request) / 1e6 if machine.t_commit and self._t_request else None
        downtime = (machine.t_resume - machine.t_stop) / 1e6 if machine.t_resume and machine.t_stop else None
        return {
            "job": self.request.job,
            "guest": self.request.guest,
            "storage": self.request.storage,
            "accel": self.request.accel,
            "total_ms": round(total, 3) if total is not None else None,
            "downtime_ms": round(downtime, 3) if downtime is not None else None,
            "t_request_ns": self._t_request,
            "t_stop_ns": machine.t_stop,
            "t_resume_ns": machine.t_resume,
            "t_attached_ns": machine.t_attached,
            "t_commit_ns": machine.t_commit,
            "locator": machine.locator,
            "passes": self.passes,
            "phases": self.phases,
            "qemu_states": self.states,
            "downtime_limits": self.limits,
            "bytes_qemu": {kind: channels.get(kind, {}).get("sent", 0) for kind in ("rpc", "ram", "nbd")},
            "channels": channels,
            "pages": self.stream.as_dict(),
            "memory_bytes": self.request.memory,
            "disks_kept": list(self._kept_disks),
            "leftover": list(machine.leftover),
        }
