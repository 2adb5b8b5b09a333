"""One migration at its destination: admission, disks, channels, arrival, commit or clean-up made real."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from xiatb.errors import IdentityError, XiatbError
from xiatb.migration import actions as a
from xiatb.migration import arrival, handover, params
from xiatb.migration import journal as j
from xiatb.migration.admission import admit_guest, refuse_busy
from xiatb.migration.channels import RelaySet, connect_local, refuse
from xiatb.migration.control_link import ControlLink
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.driver import GuestEvent
from xiatb.migration.examination import Examiner
from xiatb.migration.fate import known_fate
from xiatb.migration.hosting import RefusedError, create_disk, remove_disks
from xiatb.migration.messages import Capabilities, Channel, Disk, Message, Request
from xiatb.migration.monitor import MonitorError, QemuMonitor, reopened
from xiatb.migration.pagewatch import PageWatch
from xiatb.migration.peercalls import CallGate, GatedWire
from xiatb.migration.shell import JobShell, log
from xiatb.migration.station import Station
from xiatb.migration.tokens import ChannelOpen, TokenBook
from xiatb.migration.wirestream import Wire

Consult = Callable[["DestinationJob", a.Consult], Awaitable[tuple[str, int, str] | None]]
"""Settles the job of an earlier session: (fate, t_resume, locator), or None when it took over the link."""


class DestinationJob(JobShell):
    """Runs from an authenticated control session until the guest is here for good, or nothing of it is."""

    machine: DestinationMachine

    def __init__(
        self,
        machine: DestinationMachine,
        link: ControlLink | None,
        station: Station,
        own: Capabilities,
        consult: Consult,
        peer: str,
    ) -> None:
        super().__init__(machine, link, "job (in)")
        self.relays = RelaySet()
        self.peer = peer
        self._consult_service = consult
        self._station = station
        self._driver = station.driver
        self._node = station.node
        self._runtime = station.config.runtime
        self._own = own
        self._book: TokenBook | None = None
        self._made: list[Disk] = []
        self._holds = False
        self._watch: PageWatch | None = None
        self._examiner: Examiner | None = None
        self._monitor: QemuMonitor | None = None

    @property
    def job(self) -> str:
        """The job's id, "" before the request."""
        return self.machine.job

    @property
    def guest(self) -> str:
        """The guest's name, "" before the request."""
        return self.machine.request.guest if self.machine.request is not None else ""

    def granted(self, request: ChannelOpen) -> bool:
        """Whether this job has granted the channel: a peer may give a job of its own another's id."""
        book = self._examiner.book if self._examiner is not None else self._book
        return book is not None and book.fits(request)

    async def on_channel(self, request: ChannelOpen, wire: Wire, pin: str) -> None:
        """A stream that asks to be one of this job's channels; runs until the channel ends. `pin` is the hash
        of the certificate that it has shown, "" when it is not encrypted."""
        if self._examiner is not None:
            await self._examiner.take(request, wire, pin)
            return
        wanted = self.machine.request.tls if self.machine.request is not None else ""
        try:
            if not hmac.compare_digest(pin, wanted):
                raise IdentityError("the channel is not encrypted as the request said")
            if self._book is None or self.machine.state not in ("transfer", "switchover", "postcopy"):
                raise IdentityError("no channel is expected now")
            self._book.redeem(request)
            name = f"{request.kind}/{request.index}"
            watch = self._watch.channel() if self._watch is not None and request.kind == "ram" else None
            if request.kind == "rpc":
                wire = self._gated(wire)
            elif request.kind == "ram":
                self._watch_qemu()
            relay = await connect_local(wire, name, self._local(request.kind), watch)
        except IdentityError as error:
            log.warning("%s: %s", self.name, error)
            await refuse(wire, error.message)
            return
        except XiatbError as error:
            log.warning("%s: %s", self.name, error)
            self.machine.on_transfer_failed(error.message, time.monotonic())
            self.step()
            return
        await asyncio.wait([self.relays.run(request.kind, relay)])

    async def _examine(self, request: Request) -> None:
        """Would the guest be taken? See examination.py."""
        assert self.link is not None and self.machine.peer is not None  # noqa: S101 - asked for by the peer
        examiner = Examiner(self._station, request, self.peer, self.link.session.channel_key)
        code, reason = await examiner.verdict(self.machine.peer, self._own)
        self._examiner = examiner
        granted = () if code else examiner.grant()
        self.machine.on_examined(granted, code, reason, time.monotonic(), self._pin(request))
        self.step()

    def on_guest_event(self, event: GuestEvent) -> None:
        """An event of the local hypervisor about this guest."""
        now = time.monotonic()
        if event.kind in ("RESUME", "lifecycle:4:1"):  # RESUMED, MIGRATED
            self._settle_down()
            self.machine.on_resumed(event.t, now)
        elif event.kind == "MIGRATION":
            status = str(event.data.get("status", ""))
            if status == "postcopy-active":
                self.machine.on_switched(now)
            elif status == "completed":
                self.machine.on_pages_complete(now)
        elif event.kind.startswith("lifecycle:5:"):  # STOPPED
            self.machine.on_guest_gone(now)
        self.step()

    def on_peer_message(self, message: Message) -> None:
        """Take the guest's name for the log from the request."""
        if isinstance(message, Request) and self.machine.request is None:
            self.name = f"job {message.job} ({message.guest} in)"
            if message.verify:
                self._watch = PageWatch(message.streams, self._tell_pages)

    def _tell_pages(self) -> None:
        """All of the guest's memory has come: the source compares."""
        if self._watch is not None and self.link is not None:
            self.link.send(self._watch.pages(self.job))

    def perform(self, action: a.Action) -> None:
        """See JobShell."""
        request = self.machine.request
        if isinstance(action, a.Consult):
            self.spawn(self._consult(action))
        elif isinstance(action, a.Examine):
            self.spawn(self._examine(action.request))
        elif isinstance(action, a.Forget):
            self._forget()
        elif request is None:
            return
        elif isinstance(action, a.Record):
            self._record(request, action.state)
        elif isinstance(action, a.Regrant):
            self.spawn(self._regrant(request))
        elif isinstance(action, a.Prepare):
            self.spawn(self._prepare(request))
        elif isinstance(action, a.HoldDelegation):
            self.spawn(handover.hold(self._node, request, action.join))
        elif isinstance(action, a.ExpectGuest):
            arrival.expect(request.guest, self._station.config.qemu_pids)
            self._node.expect(request.hid, request.port, self._joined)
        elif isinstance(action, a.EndIncoming):
            self.spawn(self._driver.destroy(request.guest), must=True)
        elif isinstance(action, a.Clean):
            self.spawn(self._clean(request))

    def adopt(self, link: ControlLink) -> None:
        """Go on in a new control session, in which the source has asked for this job."""
        self.attach(link)
        self.machine.on_relinked(time.monotonic())
        self.step()

    def give_link(self) -> ControlLink | None:
        """Hand the control link to another job; this one is over."""
        link, self.link = self.link, None
        self.outcome = a.Finish(True, "", "the session goes on with the job that it asked for")
        self._over.set()
        return link

    def supersede(self) -> None:
        """The source asks for this job in a new session, so the old one has ended."""
        self.hang_up()
        self.machine.on_lost("the source has opened a new session", time.monotonic())
        self.step()

    async def ended(self) -> None:
        """Wait for the end of the job."""
        await self._over.wait()

    def _record(self, request: Request, state: str) -> None:
        """A fate "none" needs no entry: what has none here never runs here."""
        if state == "none":
            self._station.journal.close(request.job, j.DESTINATION)
            return
        if state == "lost":
            self._node.detach(request.hid)
        disks = tuple(disk.path for disk in request.disks if request.storage)
        sockets = tuple(map(str, params.all_sockets(self._runtime, request.job)[1:]))
        journal = self._station.journal
        write = journal.write if state == "prepared" else journal.note  # nothing is made without
        write(j.Entry(request.job, j.DESTINATION, state, self.peer, request, disks, sockets))

    def _forget(self) -> None:
        """Close the journal's entry, if it is of this peer: none makes this host forget another's job."""
        entry = self._station.journal.find(self.job, j.DESTINATION)
        if entry is not None and entry.peer == self.peer:
            self._station.journal.close(self.job, j.DESTINATION)

    async def _consult(self, action: a.Consult) -> None:
        told = await self._consult_service(self, action)
        if told is not None:
            self.machine.on_consulted(*told, time.monotonic())
            self.step()

    def on_phase(self, name: str) -> None:
        """Once the job is decided the guest may be moved on, while the channels still drain."""
        if name in ("committed", "settled", "done", "failed") and self._holds:
            self._holds = False
            self._station.busy.discard(self.guest)

    async def wind_up(self) -> None:
        """Channels end by themselves after success; after a failure they are reset."""
        if self._book is not None:
            self._book.revoke()
        ok = self.outcome is not None and self.outcome.ok
        await self.relays.end(3.0 if ok else 0.0)
        self._remove_sockets()
        if self._monitor is not None:
            await self._monitor.close()

    def _remove_sockets(self) -> None:
        """Those that QEMU listened at; it removes them itself unless it is killed. A session that only asked
        for a job, or examined a guest, has none."""
        if self.machine.request is not None:
            for path in (params.ram_socket, params.disk_socket):
                path(self._runtime, self.job).unlink(missing_ok=True)

    def _joined(self, locator: str, t: int) -> None:
        self._settle_down()
        self.machine.on_joined(locator, t, time.monotonic())
        self.step()

    def _settle_down(self) -> None:
        if self.machine.request is not None:
            arrival.settle_soon(self.machine.request.guest, self._station.config.qemu_pids)

    def _local(self, kind: str) -> Path:
        if kind == "rpc":
            return self._station.config.libvirt_socket
        return (params.ram_socket if kind == "ram" else params.disk_socket)(self._runtime, self.job)

    def _gated(self, wire: Wire) -> Wire:
        """An `rpc` channel that lets only this job's migration through."""
        assert self.machine.request is not None  # noqa: S101 - tokens are granted after the request
        gate = CallGate(self.machine.request, self._runtime, self._station.config.lab)
        return GatedWire(wire, gate, self.name)

    async def _prepare(self, request: Request) -> None:
        code = reason = ""
        channels: tuple[Channel, ...] = ()
        try:
            channels = await self._make_room(request)
        except RefusedError as error:
            code, reason = error.code, error.message
        except (XiatbError, OSError) as error:
            code, reason = "failed", str(error)
        if code:
            remove_disks(tuple(self._made))
            self._made.clear()
        pin, offer = self._pin(request), await handover.offer(self._node, request)
        self.machine.on_prepared(channels, code, reason, time.monotonic(), pin, offer)
        self.step()

    async def _make_room(self, request: Request) -> tuple[Channel, ...]:
        station, peer = self._station, self.machine.peer
        assert peer is not None  # noqa: S101 - the machine takes a request only after capabilities
        refuse_busy(station, request.guest)
        self._refuse_twin(request)
        station.busy.add(request.guest)  # before anything is awaited: another session may ask for it, too
        self._holds = True
        permit = partial(station.permit, request, self.peer, self._own.host)
        await admit_guest(station, request, peer, self._own, permit)
        self._refuse_twin(request)
        self._record(request, "prepared")
        if request.storage:
            for disk in request.disks:
                self._made.append(disk)
                await create_disk(disk)
        self._runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._grant(request)

    def _refuse_twin(self, request: Request) -> None:
        if self._station.journal.find(request.job, j.DESTINATION) is not None:
            raise RefusedError("busy", f"{self._own.host} has a job {request.job} already")

    def _pin(self, request: Request) -> str:
        return self._station.tls.pin if request.tls else ""

    def _grant(self, request: Request, *, memory_only: bool = False) -> tuple[Channel, ...]:
        """Tokens for the channels of the job, bound to the session at hand; earlier ones are worthless."""
        assert self.link is not None  # noqa: S101 - asked for by a message of the peer
        self._book = TokenBook(request.job, self.link.session.channel_key)
        if memory_only:
            return self._book.grant("ram", params.memory_channels(request))
        channels = self._book.grant("rpc", 1) + self._book.grant("ram", params.memory_channels(request))
        if request.storage:
            channels += self._book.grant("nbd", len(request.disks))
        return channels

    async def _regrant(self, request: Request) -> None:
        """Fresh channels for a post-copy: the old ones must be gone first, so that QEMU and libvirtd here
        know that it is broken. Without one for libvirt if QEMU itself waits for the stream already."""
        if self._book is not None:
            self._book.revoke()
        await self.relays.end(0.0)
        uri = f"unix:{params.ram_socket(self._runtime, request.job)}"
        ready = await reopened(self._own_monitor(request), uri, self.name)
        if self.link is not None:
            granted = self._grant(request, memory_only=ready)
            self.machine.on_granted(granted, time.monotonic(), self._pin(request))
            self.step()

    def _own_monitor(self, request: Request) -> QemuMonitor:
        if self._monitor is None:
            self._monitor = QemuMonitor(params.monitor_pipes(self._runtime, request.guest))
        return self._monitor

    def _watch_qemu(self) -> None:
        """QEMU is there now, and answers: later it may not."""
        request = self.machine.request
        if request is not None and request.mode != "precopy":
            self.spawn(self._open_monitor(self._own_monitor(request)))

    async def _open_monitor(self, monitor: QemuMonitor) -> None:
        try:
            await monitor.open()
        except MonitorError as error:
            log.info("%s: no monitor: %s", self.name, error.message)

    async def _clean(self, request: Request) -> None:
        """End the incoming guest, then remove what was made for it; see actions.Clean."""
        if self._book is not None:
            self._book.revoke()
        await self.relays.end(0.0)
        self._node.detach(request.hid)
        leftover: tuple[str, ...] = ()
        fate = await known_fate(self._driver, request.guest)
        if fate != "none":
            self._node.expect(request.hid, request.port)
        elif not self.machine.t_resume:
            leftover = remove_disks(tuple(self._made))
        self._remove_sockets()
        self.machine.on_cleaned(fate, leftover, time.monotonic())
        self.step()
