"""One migration at its destination: admission, disks, channels, arrival, commit or clean-up made real."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from xiatb.errors import IdentityError, XiatbError
from xiatb.migration import actions as a
from xiatb.migration import params
from xiatb.migration.channels import RelaySet, connect_local, refuse
from xiatb.migration.control_link import ControlLink
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.driver import DriverError, GuestEvent
from xiatb.migration.hosting import RefusedError, admit, create_disk, remove_disks
from xiatb.migration.ledger import Entry
from xiatb.migration.messages import Capabilities, Channel, Disk, Message, Request
from xiatb.migration.shell import JobShell, log
from xiatb.migration.station import Station
from xiatb.migration.tokens import ChannelOpen, TokenBook
from xiatb.migration.wirestream import Wire

CLEAN_S = 10.0
_STEP_S = 0.05


class DestinationJob(JobShell):
    """Runs from an authenticated control session until the guest is here for good, or nothing of it is."""

    machine: DestinationMachine

    def __init__(self, link: ControlLink, station: Station, own: Capabilities) -> None:
        super().__init__(DestinationMachine(), link, "job (in)")
        self.relays = RelaySet()
        self._station = station
        self._driver = station.driver
        self._node = station.node
        self._runtime = station.config.runtime
        self._own = own
        self._book: TokenBook | None = None
        self._made: list[Disk] = []
        self._holds = False
        self._changed = asyncio.Event()

    @property
    def job(self) -> str:
        """The job's id, "" before the request."""
        return self.machine.request.job if self.machine.request is not None else ""

    @property
    def guest(self) -> str:
        """The guest's name, "" before the request."""
        return self.machine.request.guest if self.machine.request is not None else ""

    async def on_channel(self, request: ChannelOpen, wire: Wire) -> None:
        """A stream that asks to be one of this job's channels; runs until the channel ends."""
        try:
            if self._book is None or self.machine.state not in ("transfer", "switchover"):
                raise IdentityError("no channel is expected now")
            self._book.redeem(request)
            name = f"{request.kind}/{request.index}"
            relay = await connect_local(wire, name, self._local(request.kind))
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
        self._changed.set()

    def on_guest_event(self, event: GuestEvent) -> None:
        """An event of the local hypervisor about this guest."""
        if event.kind in ("RESUME", "lifecycle:4:1"):  # RESUMED, MIGRATED
            self.machine.on_resumed(event.t, time.monotonic())
        self._changed.set()
        self.step()

    def on_peer_message(self, message: Message) -> None:
        """Take the guest's name for the log from the request."""
        if isinstance(message, Request) and self.machine.request is None:
            self.name = f"job {message.job} ({message.guest} in)"

    def perform(self, action: a.Action) -> None:
        """See JobShell."""
        request = self.machine.request
        if request is None:
            return
        if isinstance(action, a.Prepare):
            self.spawn(self._prepare(request))
        elif isinstance(action, a.ExpectGuest):
            self._node.expect(request.hid, request.port, self._joined)
        elif isinstance(action, a.Clean):
            self.spawn(self._clean(request, action.destroy))

    async def wind_up(self) -> None:
        """Channels end by themselves after success; after a failure they are reset."""
        if self._book is not None:
            self._book.revoke()
        ok = self.outcome is not None and self.outcome.ok
        await self.relays.end(3.0 if ok else 0.0)
        if self._holds:
            self._station.busy.discard(self.guest)
            self._station.ledger.close(self.job)

    def _joined(self, locator: str, t: int) -> None:
        self.machine.on_joined(locator, t, time.monotonic())
        self.step()

    def _local(self, kind: str) -> Path:
        if kind == "rpc":
            return self._station.config.libvirt_socket
        return (params.ram_socket if kind == "ram" else params.disk_socket)(self._runtime, self.job)

    async def _prepare(self, request: Request) -> None:
        code = reason = ""
        channels: tuple[Channel, ...] = ()
        try:
            channels = await self._make_room(request)
        except RefusedError as error:
            code, reason = error.code, error.message
        except (DriverError, OSError) as error:
            code, reason = "failed", str(error)
        if code:
            remove_disks(tuple(self._made))
            self._made.clear()
        self.machine.on_prepared(channels, code, reason, time.monotonic())
        self.step()

    async def _make_room(self, request: Request) -> tuple[Channel, ...]:
        if request.guest in self._station.busy:
            raise RefusedError("busy", f"{request.guest} is already being moved to or from {self._own.host}")
        peer = self.machine.peer
        assert peer is not None  # noqa: S101 - the machine takes a request only after capabilities
        station = self._station
        state = await self._driver.state(request.guest)
        admit(request, peer, self._own, station.facts, state, station.config.disks)
        self._station.busy.add(request.guest)
        self._holds = True
        disks = tuple(disk.path for disk in request.disks if request.storage)
        sockets = params.all_sockets(self._runtime, request.job)[1:]
        station.ledger.open(Entry(request.job, request.guest, disks, tuple(map(str, sockets))))
        if request.storage:
            for disk in request.disks:
                self._made.append(disk)
                await create_disk(disk)
        self._runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._book = TokenBook(request.job, self._link.session.channel_key)
        channels = self._book.grant("rpc", 1) + self._book.grant("ram", 1)
        if request.storage:
            channels += self._book.grant("nbd", len(request.disks))
        return channels

    async def _clean(self, request: Request, destroy: bool) -> None:
        """End the incoming guest, then remove what was made for it; see actions.Clean."""
        if self._book is not None:
            self._book.revoke()
        await self.relays.end(0.0)
        self._node.detach(request.hid)
        leftover: tuple[str, ...] = ()
        state = "absent"
        try:
            state = await self._settled_state(request.guest)
            if state == "running" and not destroy:
                self._node.expect(request.hid, request.port)
            elif state != "absent":
                await self._driver.destroy(request.guest)
        except DriverError as error:
            leftover = (f"guest {request.guest}: {error}",)
        here = state == "running" and not destroy
        if not here and not leftover:
            leftover = remove_disks(tuple(self._made))
            for path in (params.ram_socket, params.disk_socket):
                path(self._runtime, request.job).unlink(missing_ok=True)
        self.machine.on_cleaned(here, leftover, time.monotonic())
        self.step()

    async def _settled_state(self, guest: str) -> str:
        """The guest's state once libvirt has ended it or it runs; whatever it is after CLEAN_S.

        libvirtd itself ends an incoming guest when the connection of its migration closes.
        """
        deadline = time.monotonic() + CLEAN_S
        while True:
            state = await self._driver.state(guest)
            if state != "paused" or time.monotonic() > deadline:
                return state
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), _STEP_S)
            except TimeoutError:
                continue
