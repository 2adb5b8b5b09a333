"""The daemon's heart: accepts peers' streams, starts its users' migrations, and knows all jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from xiatb.errors import IdentityError, UsageError, WireError, XiatbError
from xiatb.identity.keys import KeyPair
from xiatb.migration import actions as a
from xiatb.migration import hosting, tokens
from xiatb.migration import journal as j
from xiatb.migration.advice import advice
from xiatb.migration.advisor import Advisor
from xiatb.migration.arrival import settle_all
from xiatb.migration.beginning import Beginnings, Begun
from xiatb.migration.carrier import Carrier
from xiatb.migration.channels import refuse
from xiatb.migration.config import DaemonConfig, Peer
from xiatb.migration.control_link import HANDSHAKE_S, ControlLink
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.destjob import DestinationJob
from xiatb.migration.door import Admitted, Door
from xiatb.migration.driver import Driver, GuestEvent, OnEvent
from xiatb.migration.facts import GuestFacts, identity_of, request_for
from xiatb.migration.failure import MigrationError
from xiatb.migration.farewell import farewell
from xiatb.migration.fate import known_fate
from xiatb.migration.fence import Fence
from xiatb.migration.handover import with_consent
from xiatb.migration.handshake import Session
from xiatb.migration.messages import FATES, Capabilities, Request
from xiatb.migration.nodeaccess import NodeAccess
from xiatb.migration.options import Options
from xiatb.migration.peerpath import PeerPath
from xiatb.migration.source import SourceMachine
from xiatb.migration.sourcejob import SourceJob
from xiatb.migration.station import Station
from xiatb.migration.storage import contents, described
from xiatb.migration.wirestream import Wire
from xiatb.wire.xid import XidType

log = logging.getLogger("xiatb.migration")


class MigrationService:
    """One per hypervisor host."""

    def __init__(
        self,
        config: DaemonConfig,
        key: KeyPair,
        carrier: Carrier,
        driver: Callable[[str, OnEvent], Driver] = Driver,
    ) -> None:
        self.config = config
        self._key = key
        self._carrier = carrier
        self._driver = driver(config.uri, self._on_guest_event)
        self._station: Station | None = None
        self._sources: dict[str, SourceJob] = {}
        self._beginning = Beginnings()
        self._incoming: set[DestinationJob] = set()
        self._jobs: set[asyncio.Task[None]] = set()
        self._advisor = Advisor(config.state_dir, config.qemu_pids)

    async def start(self) -> None:
        """Connect to libvirtd and start to accept peers; raises HostNotAbleError, XiatbError, OSError."""
        self.config.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._driver.open()
        config = self.config
        journal = j.Journal(config.state_dir / "migrations")
        self._station = Station(
            config, self._driver, NodeAccess(config.node_control), journal, await self._driver.host(),
            sid=self._key.xid(XidType.SID),
        )  # fmt: skip
        settle_all(config.qemu_pids)
        for entry in journal.left():
            await self._settle(entry)
        await self._carrier.serve(Door(self._station.tls, self).on_wire)

    async def _settle(self, entry: j.Entry) -> None:
        """Go on where a daemon that was killed has left a job; see docs/protocol-migration.md, Journal."""
        state, guest = entry.state, entry.guest
        if entry.role == j.SOURCE:
            if state == "transfer" and await self._driver.in_postcopy(guest):
                state = "postcopy"
            if state == "transfer":  # libvirt has lost its connection with the daemon and lets the guest run
                self._at.node.expect(entry.request.hid, entry.request.port)
                self._at.journal.drop(entry, disks=False)
                if peer := self.config.peers.get(entry.peer):
                    self._background(farewell(self._path(peer, {}), entry, await self._at.capabilities()))
            else:
                self._background(self._resume_source(entry, state))
            return
        if state in ("prepared", "arrived"):
            fate = await known_fate(self._driver, guest)
            state = "lost" if (state, fate) == ("arrived", "none") else fate
        if state == "lost":
            self._at.node.detach(entry.request.hid)
        if state == "postcopy":
            self._background(self._resume_destination(entry))
        elif state == "none":
            self._at.journal.drop(entry, disks=True)
        else:
            j.remove_files(entry, disks=False)
            self._at.journal.note(replace(entry, state=state))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _resume_source(self, entry: j.Entry, state: str) -> None:
        """Ask the destination, for as long as it takes, what became of a guest that was handed over."""
        peer = self.config.peers.get(entry.peer)
        if peer is None:
            log.error("job %s: its destination %s is no peer any more", entry.job, entry.peer)
            return
        request = replace(entry.request, tls=self._at.tls.pin if entry.request.tls else "")
        machine = SourceMachine.restore(request, state, time.monotonic())
        job = SourceJob(machine, None, self._path(peer, {}), self._at, lambda event: None,
                        fence=Fence(entry.process))  # fmt: skip
        self._at.busy.add(entry.guest)
        self._sources[entry.guest] = job
        try:
            await job.run()
        finally:
            j.remove_files(entry, disks=False)
            self._at.busy.discard(entry.guest)
            self._sources.pop(entry.guest, None)

    async def _resume_destination(self, entry: j.Entry) -> None:
        """Wait for the source of a guest in post-copy."""
        machine = DestinationMachine.restore(entry.request)
        await self._run_incoming(
            DestinationJob(machine, None, self._at, await self._at.capabilities(), self._consult, entry.peer)
        )

    async def _consult(self, asking: DestinationJob, action: a.Consult) -> tuple[str, int, str] | None:
        """What became of a job of an earlier session of the same peer, for good; see destjob.Consult."""
        for job in list(self._incoming):
            if job is asking or job.job != action.job or job.peer != asking.peer:
                continue
            if job.machine.state == "postcopy":
                link = asking.give_link()
                if link is not None:
                    job.adopt(link)
                return None
            job.supersede()
            await job.ended()
            return job.machine.fate or "none", job.machine.t_resume, job.machine.locator
        entry = self._at.journal.find(action.job, j.DESTINATION)
        if entry is not None and entry.peer == asking.peer and entry.state in FATES:
            return entry.state, 0, ""
        facts = await self._driver.guest(action.guest)
        return ("here" if facts is not None and facts.uuid == action.uuid else "none"), 0, ""

    def _path(self, peer: Peer, controls: Mapping[str, str]) -> PeerPath:
        return PeerPath(
            peer.name,
            lambda: self._dial_control(peer),
            lambda kind: self._carrier.dial(peer, controls.get(kind, "")),
        )

    async def stop(self) -> None:
        """Cancel what runs, wait for it briefly, disconnect."""
        for job in list(self._sources.values()):
            job.cancel("the migration daemon was stopped")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15.0):
                while self._sources:
                    await asyncio.sleep(0.05)
        await self._carrier.close()
        await self._driver.close()

    @property
    def _at(self) -> Station:
        assert self._station is not None  # noqa: S101 - set by start, before any stream or request
        return self._station

    def status(self) -> dict[str, Any]:
        """Jobs under way, for `xiatb status`."""
        return {
            "host": self.config.host,
            "outgoing": [
                {"guest": g, "job": j.request.job, "state": j.machine.state} for g, j in self._sources.items()
            ]
            + self._beginning.status(),
            "incoming": [{"guest": j.guest, "job": j.job, "state": j.machine.state} for j in self._incoming],
        }

    async def guest_states(self, names: list[str]) -> dict[str, str]:
        """libvirt's state of each named guest here."""
        return {name: await self._driver.state(name) for name in names}

    def cancel(self, guest: str) -> bool:
        """Cancel the guest's outgoing migration; False when it is too late. UsageError when there is none."""
        if guest in self._beginning:
            self._beginning.cancel(guest)
            return True
        return self.outgoing(guest).cancel("cancelled by the user")

    def outgoing(self, guest: str) -> SourceJob:
        """The guest's migration away from here; UsageError when there is none."""
        self._beginning.refuse(guest)
        if guest not in self._sources:
            raise UsageError(f"guest {guest} is not being migrated from {self.config.host}")
        return self._sources[guest]

    async def change(self, guest: str, wanted: dict[str, int]) -> dict[str, int]:
        """Other limits for the guest's outgoing migration; UsageError when there is none, DriverError."""
        return await self.outgoing(guest).change(wanted)

    def switch(self, guest: str) -> bool:
        """Switch the guest's outgoing migration to post-copy; False when mode or moment do not allow it."""
        return self.outgoing(guest).switch()

    def resume(self, guest: str) -> bool:
        """Take the guest's broken post-copy up now; False when it waits for nothing."""
        return self.outgoing(guest).resume()

    async def migrate(
        self,
        guest: str,
        to: str,
        *,
        storage: bool,
        emit: Callable[[dict[str, Any]], None],
        options: Options,
    ) -> dict[str, Any]:
        """Move a guest that runs here to host `to`; gives the result once it runs there.

        Raises UsageError for a host that makes no sense and MigrationError when the guest was not moved.
        """
        try:
            return await self._move(guest, to, storage, emit, options)
        except MigrationError as error:
            kept = bool(error.result.get("disks_kept"))
            error.hint = advice(error.code, guest, self.config.host, to, kept=kept)
            raise

    async def _move(
        self, guest: str, to: str, storage: bool, emit: Callable[[dict[str, Any]], None], options: Options
    ) -> dict[str, Any]:
        peer, facts = self._peer(to), await self._running(guest)
        self._at.busy.add(guest)
        try:
            begun = self._begin(peer, facts, storage, emit, options)
            request, link = await self._beginning.run(guest, begun)
            job = SourceJob(
                SourceMachine(request), link, self._path(peer, options.congestion), self._at, emit, options
            )
            self._sources[guest] = job
            foreseen = self._advisor.begin(request, to, options)
            outcome = await job.run(await self._at.capabilities(facts.accel))
        finally:
            self._at.busy.discard(guest)
            self._sources.pop(guest, None)
        result = {**job.result(), "from": self.config.host, "to": to, "note": outcome.reason}
        result["congestion"] = dict(options.congestion)
        if not outcome.ok:
            foreseen.cancel()
            raise MigrationError(outcome.code, outcome.reason, result=result)
        await self._advisor.end(foreseen, to, result)
        entry = self._at.journal.find(request.job, j.SOURCE)
        if entry is not None:  # moved, but not confirmed: the disks here stay until it is
            self._background(self._resume_source(entry, entry.state))
        return result

    async def _begin(
        self, peer: Peer, facts: GuestFacts, storage: bool, emit: Callable[[dict[str, Any]], None],
        options: Options,
    ) -> Begun:  # fmt: skip
        """The request, and a control session to send it in."""
        request = await self._request(facts, storage, options)
        request = await with_consent(request, self.config, peer.sid, emit)
        self._permit(request, peer.name)
        return request, await self._dial_control(peer)

    async def plan(self, guest: str, to: str, *, storage: bool, options: Options) -> dict[str, Any]:
        """What `migrate` would be: see Advisor.plan. Raises as `migrate` does."""
        peer, facts = self._peer(to), await self._running(guest)
        request = await self._request(facts, storage, options)
        link = await self._dial_control(peer)
        path, own = self._path(peer, options.congestion), await self._at.capabilities(facts.accel)
        dial = partial(path.secured, self._at.tls)
        try:
            return await self._advisor.plan(request, to, options, link, dial, own)
        except (XiatbError, OSError) as error:
            raise MigrationError("failed", f"no plan for {guest} to {to}: {error}") from None

    async def _running(self, guest: str) -> GuestFacts:
        facts = await self._driver.guest(guest)
        if facts is None:
            state = await self._driver.state(guest)
            raise MigrationError(
                "not-running", f"guest {guest} is not running on {self.config.host} ({state})"
            )
        if guest in self._at.busy:
            raise MigrationError("busy", f"guest {guest} is already being moved")
        return facts

    def _permit(self, request: Request, to: str) -> None:
        try:
            self._at.permit(request, self.config.host, to)
        except hosting.RefusedError as error:
            raise MigrationError(error.code, error.message) from None

    def _peer(self, to: str) -> Peer:
        if to == self.config.host:
            raise UsageError(f"the guest is already on {to}")
        if to not in self.config.peers:
            known = ", ".join(sorted(self.config.peers)) or "none"
            raise UsageError(
                f"{to} is no hypervisor host that {self.config.host} knows", hint=f"known: {known}"
            )
        return self.config.peers[to]

    async def _request(self, facts: GuestFacts, storage: bool, options: Options) -> Request:
        identity = identity_of(self.config.guests, facts.name)
        disks = tuple([await hosting.inspect_disk(*disk) for disk in facts.disks])
        disks = await described(disks, copied=storage, backing=options.backing)
        pin = self._at.tls.pin if options.encrypt else ""
        request = request_for(
            secrets.token_hex(4), facts, identity, disks, storage=storage and bool(disks), tls=pin,
            options=options,
        )  # fmt: skip
        return replace(request, contents=await contents(facts.files))

    async def _dial_control(self, peer: Peer) -> ControlLink:
        session = Session(self._key, [peer.sid], initiator=True)
        session.start()
        try:
            wire = await asyncio.wait_for(self._carrier.dial(peer), HANDSHAKE_S)
            link = ControlLink(wire, session)
            await link.handshake()
        except TimeoutError:
            raise MigrationError("timeout", f"{peer.name} did not take the control stream in time") from None
        except (OSError, XiatbError) as error:
            raise MigrationError("lost", f"no control session with {peer.name}: {error}") from None
        return link

    async def on_channel(self, wire: Wire, body: bytes, pin: str, admitted: Admitted) -> None:
        """See door.Takers. A job's id opens the door, its token the channel."""
        request = tokens.parse_open(body)
        named = [job for job in self._incoming if job.job == request.job]
        if not named:
            await refuse(wire, "no such job")
            return
        admitted()
        await next(filter(lambda one: one.granted(request), named), named[0]).on_channel(request, wire, pin)

    async def on_control(self, wire: Wire, first: bytes, admitted: Admitted) -> None:
        """See door.Takers."""
        session = Session(self._key, [p.sid for p in self.config.peers.values()], initiator=False)
        link = ControlLink(wire, session)
        try:
            await link.handshake(first)
        except (WireError, IdentityError) as error:
            log.warning("handshake refused: %s", error)
            return
        admitted()
        name = next((p.name for p in self.config.peers.values() if p.sid == session.peer_sid), "")
        own = await self._at.capabilities()
        job = DestinationJob(DestinationMachine(), link, self._at, own, self._consult, name)
        await self._run_incoming(job, own)

    async def _run_incoming(self, job: DestinationJob, own: Capabilities | None = None) -> None:
        self._incoming.add(job)
        try:
            await job.run(own)
        finally:
            self._incoming.discard(job)

    def _on_guest_event(self, event: GuestEvent) -> None:
        job = self._sources.get(event.guest)
        if job is not None:
            job.on_guest_event(event)
        for incoming in list(self._incoming):
            if incoming.guest == event.guest:
                incoming.on_guest_event(event)
