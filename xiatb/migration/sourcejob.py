"""One migration at its source: the machine's actions made real with libvirt, relays and the node process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from xiatb.errors import XiatbError
from xiatb.migration import actions as a
from xiatb.migration.channels import RelaySet
from xiatb.migration.comparison import Comparison, PagesDifferError
from xiatb.migration.control_link import ControlLink
from xiatb.migration.driver import DriverError, GuestEvent
from xiatb.migration.fence import Fence
from xiatb.migration.firstpages import FirstPages
from xiatb.migration.handover import Departure
from xiatb.migration.hosting import remove_disks
from xiatb.migration.keptcopy import KeptCopy
from xiatb.migration.messages import Channel, Message, Progress
from xiatb.migration.options import Options
from xiatb.migration.overview import overview
from xiatb.migration.peerpath import PeerPath
from xiatb.migration.planning import storage_bytes
from xiatb.migration.progress import ProgressBoard
from xiatb.migration.relay import Gate
from xiatb.migration.rpcgate import FinishGate
from xiatb.migration.shell import JobShell, log
from xiatb.migration.source import SourceMachine
from xiatb.migration.stamps import stamps
from xiatb.migration.station import Station
from xiatb.migration.steering import Steering, bounds_of
from xiatb.migration.transfer import Transfer, recovery_failed
from xiatb.migration.tuning import Tuning

POLL_S = 0.1
TOUCH_S = 0.5
"""How far apart the words are that find out whether the destination's daemon still is the same."""
OLD_CALL_S = 10.0
"""How long libvirt may take to notice that the channels of a broken post-copy are gone."""
DEFAULT = Options()
_MOVING = ("transfer", "cancelling", "postcopy", "asking")
_DIED = tuple(f"lifecycle:5:{detail}" for detail in (0, 1, 2, 5))
"""STOPPED: shut down, destroyed, crashed, failed; 3 is the end of a migration."""
Emit = Callable[[dict[str, Any]], None]


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
        fence = fence or Fence.of(request.guest, station.config.qemu_pids)
        self._copy = KeptCopy(machine, station, path.peer, fence, self)
        self.pages = Comparison(request.streams, request.verify)
        self.passes: list[dict[str, int]] = []
        self.states: list[dict[str, Any]] = []
        self._driver = station.driver
        self._node = station.node
        self._departure = Departure(request, station, machine, self.step, self._note)
        self._runtime = station.config.runtime
        self._emit = emit
        self._options = options
        self._transfer: Transfer | None = None
        self.relays = RelaySet()
        self._board = ProgressBoard(storage_bytes(request))
        self._steering = Steering(
            bounds_of(options), self._driver, request.guest, self.switch, emit, self.name
        )
        self._tuning = Tuning(
            options, self._driver, request.guest, self._steering.controller,
            partial(self.cancel, code="time-limit"), self.switch, self._note,
        )  # fmt: skip
        ask, cap = options.first_pages, self._steering.cap
        self._first = FirstPages(request, self._driver, self.relays, cap, ask)
        self._active = asyncio.Event()  # QEMU's post-copy runs
        self.recoveries = 0
        """How often a broken post-copy was taken up again."""
        self._t_request = 0
        self._kept_disks: tuple[str, ...] = tuple(disk.path for disk in request.disks if request.storage)

    async def change(self, wanted: dict[str, int]) -> dict[str, int]:
        """Other limits from now on; see Tuning.change."""
        return await self._tuning.change(wanted)

    def overview(self) -> dict[str, Any]:
        """How it stands, for a user who asks; see overview.py."""
        controller, done = self._steering.controller, self._steering.done
        return overview(self.request, self._path.peer, self.phases, self._board.last, controller, done,
                        self.recoveries)  # fmt: skip

    def switch(self) -> bool:
        """Go over to post-copy; False when the mode or the moment does not allow it."""
        accepted = self._board.phase == "precopy" and self.machine.switch(time.monotonic())
        self.step()
        return accepted

    def resume(self) -> bool:
        """Take a broken post-copy up at once, in place of waiting for the next attempt; False when there is
        nothing to take up."""
        waits = self.machine.hurry(time.monotonic())
        self.step()
        return waits

    def cancel(self, reason: str, code: str = "cancelled") -> bool:
        """Stop the migration; False when it is too late."""
        accepted = self.machine.cancel(reason, time.monotonic(), code)
        self.step()
        return accepted

    def on_guest_event(self, event: GuestEvent) -> None:
        """An event of the local hypervisor about this guest."""
        now = time.monotonic()
        if event.kind in ("STOP", "lifecycle:3:1"):  # SUSPENDED, MIGRATED
            self._first.stopped()
            self.machine.on_stopped(event.t, now)
        elif event.kind == "RESUME":
            self.machine.on_resumed_here(now)
        elif event.kind == "MIGRATION":
            status = str(event.data.get("status", ""))
            self.states.append({"status": status, "t_ns": event.t})
            self.spawn(self._first.on_status(status))
            if self._transfer is not None:
                self._transfer.on_status(status)
            if status == "active" and self.request.mode == "postcopy":
                self.machine.switch(now)
            elif status == "postcopy-active":
                self._active.set()
                self.machine.on_switched(event.t, now)
            elif status == "postcopy-paused" and self._active.is_set():  # else the end of the stream before
                self.machine.on_stalled(now)
        elif event.kind in _DIED:
            self.machine.on_copy_gone(now)
        elif event.kind == "MIGRATION_PASS":
            number = int(event.data.get("pass", 0))
            self.passes.append({"pass": number, "start_ns": event.t})
            if number > 1 and self.pages.watch is not None:
                self.pages.watch.next_pass(event.t)
        self.step()

    def on_phase(self, name: str) -> None:
        """Tell the user; the request's time is the start of the admission phase."""
        if name == "admission":
            self._t_request = time.monotonic_ns()
        elif name == "postcopy":
            self._board.phase = name
        elif name == "handover":
            self.spawn(self._stay_in_touch())
        self._emit({"event": "phase", "phase": name, "t_ns": time.monotonic_ns()})

    def perform(self, action: a.Action) -> None:
        """See JobShell."""
        if isinstance(action, a.StartTransfer):
            self.spawn(self._carry(action.channels, action.tls))
            self.spawn(self._watch())
        elif isinstance(action, a.RecoverTransfer):
            self.recoveries += 1
            self._active.clear()
            self.spawn(self._carry(action.channels, action.tls, resume=True))
        elif isinstance(action, a.CancelTransfer) and self._transfer is not None:
            self.spawn(self._transfer.cancel())
        elif isinstance(action, a.DetachGuest | a.ReattachGuest | a.AskDelegation):
            self._departure.perform(action)
        elif isinstance(action, a.RemoveDisks) and self.request.storage:
            self._kept_disks = remove_disks(self.request.disks)
        elif isinstance(action, a.Redial):
            self.spawn(self._redial())
        elif isinstance(action, a.Hangup):
            self.hang_up()
        elif isinstance(action, a.StartPostcopy):
            self.spawn(self._first.switch())
        elif isinstance(action, a.CloseChannels) and self._transfer is not None:
            self.spawn(self._transfer.give_up(), must=True)
        else:
            self._copy.perform(action)
            if isinstance(action, a.EndCopy) and self._transfer is not None:
                self.spawn(self._transfer.close(0.0))  # libvirt may wait for a Finish that is never answered

    async def _redial(self) -> None:
        """A new control session with the same peer."""
        self.hang_up()
        own = await self._station.capabilities()
        try:
            link = await self._path.control()
        except (XiatbError, OSError) as error:
            self.machine.on_dial_failed(str(error), time.monotonic())
        else:
            # Nothing may be awaited between these two: the peer's first message would come out of turn.
            self.attach(link)
            self.machine.on_established(own, time.monotonic())
        self.step()

    async def _finish_called(self) -> None:
        """libvirt is about to start the guest there: hand it over, or raise to refuse."""
        postcopy = self.request.mode != "precopy" and await self._driver.in_postcopy(self.request.guest)
        if not postcopy:
            await self._verify()
        elif self.recoveries:
            # libvirtd there takes a Finish that overtakes QEMU's own resumption for a new failure.
            await asyncio.wait_for(self._active.wait(), OLD_CALL_S)
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
        if self._transfer is not None:
            await self._transfer.close()
        self._departure.close()
        await self._node.settle()

    async def _carry(self, granted: tuple[Channel, ...], pin: str, *, resume: bool = False) -> None:
        """Let libvirt migrate over these channels, or go on with a post-copy that broke."""
        assert self.link is not None  # noqa: S101 - channels come with the peer's ACCEPT
        transfer = Transfer(self.request, self._options, self._driver, self._runtime, self.relays)
        before, self._transfer = self._transfer, transfer
        if before is not None:
            await before.close(0.0)
            await before.ended(OLD_CALL_S)
        if self._transfer is not transfer:
            return  # another attempt has begun meanwhile
        watches = {"ram": self.pages.watch.channel} if self.pages.watch else {}
        gates: dict[str, Gate] = {"ram": await self._first.gate(), "nbd": self._steering.disk_cap}
        gates["rpc"] = FinishGate(self._finish_called, self._finish_answered)
        try:
            if resume and await self._driver.state(self.request.guest) in ("absent", "off"):
                self.machine.on_copy_gone(time.monotonic())
            dial = partial(self._path.secured, self._station.tls, pin)
            transfer.open(granted, self.link.session.channel_key, dial, watches, gates, self._channel_open,
                          self._channel_ended)  # fmt: skip
            reason = await transfer.run(resume=resume)
        except (DriverError, OSError) as error:
            reason = str(error) or type(error).__name__  # "" would mean that all went well
        if reason:
            log.info("%s: libvirt: %s", self.name, reason)
            if resume and self._transfer is transfer:
                self._note(recovery_failed(self.recoveries, reason))
            reason = await self._check_gone(reason)
        if reason and self._transfer is not transfer:
            return  # another attempt is under way
        self.machine.on_transfer_done(not reason, reason, time.monotonic())
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
        if phase is not None and self._board.phase not in (phase, "postcopy"):
            self.phases.append({"name": phase, "start_ns": t})
            self._board.phase = phase
            self._emit({"event": "phase", "phase": phase, "t_ns": t})

    async def _watch(self) -> None:
        """Progress for the user ten times a second, for the peer every other time."""
        turn = 0
        self._steering.begin(time.monotonic())
        while self.outcome is None:
            await asyncio.sleep(POLL_S)
            if self.machine.state not in _MOVING or self._transfer is None:
                continue
            if self.machine.state == "asking":
                self._emit({"event": "progress", "phase": "asking", "remaining": 0, "total": 0, "rate": 0})
                continue
            await self._tuning.watch(self._board.phase == "precopy", time.monotonic())
            stats = await self._driver.job_stats(self.request.guest)
            await self._steer(stats)
            event = self._board.update(stats, self.relays, len(self.passes), time.monotonic())
            self._emit(event)
            turn += 1
            if turn % 2 == 0:
                self._tell_peer()

    async def _stay_in_touch(self) -> None:
        """Nothing else is sent during the hand-over, so the end of the peer would not be heard of."""
        await asyncio.sleep(TOUCH_S)  # most are over by then
        while self.machine.state == "handover":
            self._tell_peer()
            await asyncio.sleep(TOUCH_S)

    def _tell_peer(self) -> None:
        """The newest progress, if there is any. Where a daemon that had died was started again it is answered
        by a reset."""
        if (event := self._board.last) and self.outcome is None and not self.machine.lost and self.link:
            self.link.send(Progress(
                job=self.request.job, phase=event["phase"], passes=event["pass"],
                transferred=event["transferred"], remaining=event["remaining"], rate=event["rate"],
            ))  # fmt: skip

    async def _steer(self, stats: dict[str, Any]) -> None:
        """Let the controller look, once memory is being copied."""
        if self._board.phase != "precopy" or self.machine.t_stop or self._tuning.forced:
            return
        relays = self.relays
        await self._steering.observe(
            stats, len(self.passes), relays.moved("ram"), relays.backlog(), relays.round_trip(),
            time.monotonic(),
        )  # fmt: skip

    def _note(self, entry: dict[str, Any]) -> None:
        """Something was done for the user; it is shown and kept like a decision of the controller."""
        self._steering.done.append(entry)
        self._emit({"event": "decision", **entry})

    def on_peer_message(self, message: Message) -> None:
        """The destination's digests are compared here."""
        self.pages.hear(message)
        self._first.hear(message)

    async def _verify(self) -> None:
        """See Comparison.demand; the migration is given up when pages differ."""
        try:
            await self.pages.demand()
        except PagesDifferError as error:
            log.error("%s: %s", self.name, error.message)
            self.machine.cancel(error.message, time.monotonic(), "corrupted")
            self.step()
            raise

    def result(self) -> dict[str, Any]:
        """Everything measured, for the CLI and result.json. Times are monotonic ns, 0 when unknown."""
        machine = self.machine
        channels = self.relays.report()
        return {
            "job": self.request.job,
            "guest": self.request.guest,
            "mode": self.request.mode,
            "streams": self.request.streams,
            "storage": self.request.storage,
            "incremental": self.request.incremental,
            "recoveries": self.recoveries,
            "encrypted": bool(self.request.tls),
            "accel": self.request.accel,
            **stamps(machine, self._t_request),
            "locator": machine.locator,
            "passes": self.passes,
            "phases": self.phases,
            "qemu_states": self.states,
            "decisions": self._steering.done,
            "capped": bool(self._options.bandwidth),
            "bytes_qemu": {kind: channels.get(kind, {}).get("sent", 0) for kind in ("rpc", "ram", "nbd")},
            "channels": channels,
            "pages": self.pages.report(),
            "handover": self._departure.report(),
            "memory_bytes": self.request.memory,
            "disks_kept": list(self._kept_disks),
            "leftover": list(machine.leftover),
        }
