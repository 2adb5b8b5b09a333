"""One migration at its source: the machine's actions made real with libvirt, relays and the node process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from xiatb.errors import XiatbError
from xiatb.migration import actions as a
from xiatb.migration import journal as j
from xiatb.migration import params
from xiatb.migration.channels import Dial, SourceChannels
from xiatb.migration.control_link import ControlLink
from xiatb.migration.driver import DriverError, GuestEvent
from xiatb.migration.fence import Fence
from xiatb.migration.hosting import remove_disks
from xiatb.migration.messages import Channel, Progress
from xiatb.migration.options import Options
from xiatb.migration.policy import DowntimeLimit
from xiatb.migration.progress import ProgressBoard
from xiatb.migration.qemustream import QemuStream
from xiatb.migration.rpcgate import FinishGate
from xiatb.migration.shell import JobShell, log
from xiatb.migration.source import SourceMachine
from xiatb.migration.station import Station
from xiatb.migration.wirestream import Wire

POLL_S = 0.1
DEFAULT = Options()
_MOVING = ("transfer", "cancelling", "postcopy", "asking")
Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class PeerPath:
    """How to reach one peer's daemon: new control sessions and channels of a kind."""

    peer: str
    control: Callable[[], Awaitable[ControlLink]]
    channel: Dial


class SourceJob(JobShell):
    """Runs until the guest has moved or the migration has failed; `result` then describes it.

    `emit` gets an event (a JSON object) for every phase and ten times a second while bytes flow.
    """

    machine: SourceMachine

    def __init__(
        self,
        machine: SourceMachine,
        link: ControlLink | None,
        path: PeerPath,
        station: Station,
        emit: Emit,
        options: Options = DEFAULT,
        fence: Fence | None = None,
    ) -> None:
        request = machine.request
        super().__init__(machine, link, f"job {request.job} ({request.guest} out)")
        self.request = request
        self._path = path
        self._station = station
        self._fence = fence or Fence.of(request.guest, station.config.qemu_pids)
        self.stream = QemuStream()
        self.passes: list[dict[str, int]] = []
        self.states: list[dict[str, Any]] = []
        self._driver = station.driver
        self._node = station.node
        self._runtime = station.config.runtime
        self._emit = emit
        self._options = options
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
            status = str(event.data.get("status", ""))
            self.states.append({"status": status, "t_ns": event.t})
            if status == "postcopy-active":
                self.machine.on_switched(event.t, now)
            elif status == "postcopy-paused":
                self.machine.on_stalled(now)
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
            self.spawn(self._transfer(action.channels, action.tls))
            self.spawn(self._watch())
        elif isinstance(action, a.CancelTransfer):
            self.spawn(self._driver.abort(self.request.guest))
        elif isinstance(action, a.DetachGuest):
            self._node.detach(self.request.hid)
        elif isinstance(action, a.ReattachGuest):
            self._node.expect(self.request.hid, self.request.port)
        elif isinstance(action, a.RemoveDisks) and self.request.storage:
            self._kept_disks = remove_disks(self.request.disks)
        elif isinstance(action, a.Redial):
            self.spawn(self._redial())
        elif isinstance(action, a.Hangup):
            self.hang_up()
        elif isinstance(action, a.StartPostcopy):
            self.spawn(self._start_postcopy())
        elif isinstance(action, a.CloseChannels) and self._channels is not None:
            self.spawn(self._channels.close(0.0))
        else:
            self._perform_fate(action)

    def _perform_fate(self, action: a.Action) -> None:
        """Journal and fence: what decides where the guest runs, done before this returns."""
        request, journal = self.request, self._station.journal
        if isinstance(action, a.Record):
            sockets = tuple(map(str, params.all_sockets(self._runtime, request.job)))
            journal.write(
                j.Entry(request.job, j.SOURCE, action.state, self._path.peer, request, sockets=sockets,
                        process=self._fence.process)
            )  # fmt: skip
        elif isinstance(action, a.Forget):
            journal.close(request.job, j.SOURCE)
        elif isinstance(action, a.Freeze):
            try:
                self._fence.freeze()
            except XiatbError as error:
                self.machine.on_not_frozen(error.message, time.monotonic())
        elif isinstance(action, a.Thaw):
            self._fence.thaw()
        elif isinstance(action, a.EndCopy):
            self._fence.kill()
            self.spawn(self._end_copy(), must=True)
        elif isinstance(action, a.RunHere):
            self.spawn(self._run_here(), must=True)

    async def _end_copy(self) -> None:
        """libvirt notices the end of the process by itself; the definition is removed after that."""
        await self._driver.destroy(self.request.guest)

    async def _run_here(self) -> None:
        await self._driver.resume(self.request.guest)
        self._node.expect(self.request.hid, self.request.port)

    async def _start_postcopy(self) -> None:
        try:
            await self._driver.start_postcopy(self.request.guest)
        except DriverError as error:
            log.warning("%s: post-copy: %s", self.name, error)

    async def _redial(self) -> None:
        """A new control session with the same peer."""
        self.hang_up()
        try:
            link = await self._path.control()
        except (XiatbError, OSError) as error:
            self.machine.on_dial_failed(str(error), time.monotonic())
        else:
            self.attach(link)
            self.machine.on_established(await self._station.capabilities(), time.monotonic())
        self.step()

    async def _finish_called(self) -> None:
        """libvirt is about to start the guest there: hand it over, or raise to refuse."""
        postcopy = self.request.mode != "precopy" and await self._driver.in_postcopy(self.request.guest)
        self.machine.on_finish(postcopy, time.monotonic())
        self.step()
        if not self.machine.may_start:
            raise XiatbError(f"no hand-over in state {self.machine.state}")

    def _finish_answered(self, ok: bool) -> None:
        self.machine.on_finish_answer(ok, time.monotonic())
        self.step()

    def _channel_ended(self, kind: str) -> None:
        if kind == "rpc" and self.outcome is None:
            self.machine.on_channel_lost(time.monotonic())
            self.step()

    async def wind_up(self) -> None:
        """Close what the transfer opened."""
        if self._channels is not None:
            await self._channels.close()
        await self._node.settle()

    async def _transfer(self, granted: tuple[Channel, ...], pin: str) -> None:
        job, directory = self.request.job, self._runtime
        assert self.link is not None  # noqa: S101 - a transfer begins with the peer's ACCEPT
        gate = FinishGate(self._finish_called, self._finish_answered)
        self._channels = SourceChannels(
            job, granted, self.link.session.channel_key, partial(self._dial, pin),
            {"ram": lambda: self.stream.feed}, {"rpc": gate}, self._channel_open,
        )  # fmt: skip
        self._channels.on_end = self._channel_ended
        ok, reason = True, ""
        try:
            self._channels.listen("rpc", params.rpc_socket(directory, job))
            self._channels.listen("ram", params.ram_socket(directory, job))
            if self.request.storage:
                self._channels.listen("nbd", params.disk_socket(directory, job))
            await self._driver.migrate(
                self.request.guest,
                params.destination_uri(directory, job),
                params.migration_parameters(self.request, directory, self._options.bandwidth),
                params.migration_flags(self.request),
            )
        except (DriverError, OSError) as error:
            ok, reason = False, str(error)
        if not ok:
            reason = await self._check_gone(reason)
            ok = not reason
        self.machine.on_transfer_done(ok, reason, time.monotonic())
        self.step()

    async def _dial(self, pin: str, kind: str) -> Wire:
        """A stream for a channel of this kind, encrypted unless `pin` is empty."""
        wire = await self._path.channel(kind)
        if not pin:
            return wire
        try:
            return await self._station.tls.connect(wire, pin)
        except BaseException:
            wire.abort()
            raise

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
            if self.machine.state not in _MOVING or self._channels is None:
                continue
            if self.machine.state == "asking":
                self._emit({"event": "progress", "phase": "asking", "remaining": 0, "total": 0, "rate": 0})
                continue
            await self._steer()
            stats = await self._driver.job_stats(self.request.guest)
            event = self._board.update(stats, self._channels.relays, len(self.passes), time.monotonic())
            self._emit(event)
            turn += 1
            if turn % 2 == 0 and self.outcome is None and not self.machine.lost and self.link:
                self.link.send(
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
            "encrypted": bool(self.request.tls),
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
