"""A hypervisor that is simulated: the daemon's own driver seam, libvirt's migration over real sockets, and a
harmless process that stands for QEMU, so that the real fence works on it.

Two `Host`s with UNIX sockets as network run whole migrations in milliseconds, and faults come at an exact
instant: `Plan` says at which step what happens. Each daemon has a thread and an event loop of its own, so
that `Host.crash` can end it between two steps as SIGKILL does: no more of its code runs, its sockets close.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import libvirt

from tests.migration import libvirtcalls
from xiatb.identity.keys import KeyPair
from xiatb.migration.carrier import UnixCarrier
from xiatb.migration.config import DaemonConfig, Peer
from xiatb.migration.driver import DriverError, GuestEvent, HostFacts
from xiatb.migration.facts import GuestFacts
from xiatb.migration.rpcgate import PROGRAM
from xiatb.migration.service import MigrationService
from xiatb.wire.xid import XidType

PREPARE, FINISH = 303, 306
CALL, REPLY = 0, 1
MEMORY = 1 << 20
Hook = Callable[[], None]


class Cancelled(Exception):
    """The migration was broken off and the guest let go on."""


@dataclass
class Plan:
    """Called at the named step of a migration: "ram", "stop", "finish" (about to call it), "started",
    "answered"."""

    at: dict[str, Hook] = field(default_factory=dict)
    start_fails: bool = False

    def reach(self, step: str) -> None:
        self.at.pop(step, lambda: None)()


class Guest:
    """A guest on one host: a process, and whether it is meant to run."""

    def __init__(self, name: str, host: Host) -> None:
        self.name, self.host = name, host
        self.process = subprocess.Popen(["sleep", "600"])
        self.wants = False
        self.pid_file.write_text(f"{self.process.pid}\n")

    @property
    def pid_file(self) -> Path:
        return self.host.base / f"{self.name}.pid"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None and not _dying(self.process.pid)

    @property
    def frozen(self) -> bool:
        return self.alive and _state(self.process.pid) == "T"

    @property
    def runs(self) -> bool:
        return self.alive and self.wants and not self.frozen

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.wants = False
        self.pid_file.unlink(missing_ok=True)
        self.host.guests.pop(self.name, None)


class Host:
    """One hypervisor host: libvirtd, its guests, and a migration daemon that can be killed and started."""

    def __init__(self, name: str, base: Path, plan: Plan) -> None:
        self.name, self.base, self.plan = name, base / name, plan
        self.base.mkdir()
        (self.base / "images").mkdir()
        self.key = KeyPair.generate()
        self.sid = self.key.xid(XidType.SID)
        self.guests: dict[str, Guest] = {}
        self.daemon: Daemon | None = None
        self.config: DaemonConfig | None = None
        self.loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._ram: asyncio.Server | None = None
        self.calls: set[asyncio.Task[Any]] = set()

    @property
    def carrier_path(self) -> Path:
        return self.base / "xia"

    async def start(self, peers: list[Host], **changes: Any) -> None:
        """libvirtd and the daemon."""
        self._server = await asyncio.start_unix_server(self._libvirtd, str(self.base / "libvirt"))
        self.config = DaemonConfig(
            lab="t", host=self.name, key=self.base / "key", state_dir=self.base / "state",
            socket=self.base / "ctl", uri="sim", libvirt_socket=self.base / "libvirt",
            runtime=self.base / "run", images=self.base, disks=self.base / "images", carrier="unix",
            listen=str(self.carrier_path), qemu_pids=self.base, memory_reserve=0,
            peers={p.name: Peer(p.name, p.sid, str(p.carrier_path)) for p in peers}, **changes,
        )  # fmt: skip
        await self.start_daemon()

    async def start_daemon(self) -> None:
        """As after a crash: only what is on disk is left of the one before."""
        self.daemon = Daemon(self)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.daemon.start(), self.daemon.loop))

    def crash(self) -> None:
        """Kill the daemon."""
        assert self.daemon is not None
        self.daemon.crash()

    async def ask(self, work: Callable[[MigrationService], Any]) -> Any:
        """Let the daemon do something and give its answer."""
        assert self.daemon is not None
        service = self.daemon.service

        async def run() -> Any:
            return await work(service)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), self.daemon.loop))

    def start_guest(self, name: str) -> Guest:
        guest = self.guests[name] = Guest(name, self)
        guest.wants = True
        return guest

    def event(self, guest: str, kind: str, **data: Any) -> None:
        if self.daemon is not None:
            self.daemon.tell(GuestEvent(guest, kind, time.monotonic_ns(), data))

    async def _libvirtd(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The destination's libvirtd: Prepare makes an incoming guest, Finish starts it, a connection that
        ends before that destroys it."""
        incoming: Guest | None = None
        finished = False
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                procedure, serial, body = await _read(reader)
                status = 0
                if procedure == PREPARE:
                    told, _ = libvirtcalls.told(body)
                    name = ET.fromstring(told["destination_xml"]).findtext("name", "")
                    incoming = self.guests[name] = Guest(name, self)
                    await self._listen_ram(Path(told["migrate_uri"]))
                elif procedure == FINISH and incoming is not None:
                    finished = True
                    if self.plan.start_fails or body[-4:] != bytes(4):
                        incoming.end()
                        status = 1
                    else:
                        incoming.wants = True
                        self.event(incoming.name, "RESUME")
                        self.plan.reach("started")
                writer.write(_packet(procedure, REPLY, serial, status))
                await writer.drain()
        writer.close()
        if incoming is not None and not finished:
            incoming.end()

    async def _listen_ram(self, path: Path) -> None:
        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            path.unlink(missing_ok=True)  # as QEMU does once its stream is there
            left = MEMORY
            while left and (data := await reader.read(65536)):
                left -= len(data)
            if not left:
                writer.write(b"shut")
            while await reader.read(65536):
                pass
            writer.close()

        path.parent.mkdir(exist_ok=True)
        self._ram = await asyncio.start_unix_server(swallow, str(path))

    async def migrate(self, guest: Guest, rpc: str, ram: str) -> None:
        plan = self.plan
        task = asyncio.current_task()
        assert task is not None
        self.calls.add(task)
        reader, writer = await asyncio.open_unix_connection(rpc)
        try:
            where = ("migrate_uri", libvirtcalls.uri(ram))
            prepare = libvirtcalls.prepare(libvirtcalls.description(guest.name), where)
            await _call(reader, writer, PREPARE, 1, prepare)
            plan.reach("ram")
            ram_reader, ram_writer = await asyncio.open_unix_connection(ram)
            ram_writer.write(bytes(MEMORY - 1000))
            await ram_writer.drain()
            guest.wants = False
            self.event(guest.name, "STOP")
            plan.reach("stop")
            ram_writer.write(bytes(1000))
            await ram_reader.readexactly(4)
            plan.reach("finish")
            if await _call(reader, writer, FINISH, 2, libvirtcalls.finish(guest.name)):
                raise ConnectionError("the destination did not start the guest")
            plan.reach("answered")
            ram_writer.close()
            guest.end()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.close()
            while guest.frozen:  # the monitor of a stopped process does not answer
                await asyncio.sleep(0.005)
            if guest.alive and not guest.wants:
                guest.wants = True
                self.event(guest.name, "RESUME")
            raise Cancelled from None
        finally:
            self.calls.discard(task)
        writer.close()

    def cancel_calls(self) -> None:
        """virDomainAbortJob."""
        for task in list(self.calls):
            task.cancel()

    async def stop(self) -> None:
        if self.daemon is not None and self.daemon.loop.is_running():
            self.daemon.crash()
        for server in (self._server, self._ram):
            if server is not None:
                server.close()
        for guest in list(self.guests.values()):
            guest.end()


class Daemon:
    """A migration daemon with a loop and thread of its own."""

    _graves: ClassVar[list[Any]] = []
    """What crashed daemons leave must not be collected, or their `finally` blocks would run."""

    def __init__(self, host: Host) -> None:
        assert host.config is not None
        self.host = host
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.driver: SimDriver | None = None
        self.service: Any = None

    async def start(self) -> None:
        """In its own loop: a MigrationService with a simulated driver."""
        config = self.host.config
        assert config is not None
        carrier = UnixCarrier(self.host.carrier_path)
        self.service = MigrationService(config, self.host.key, carrier, self._make_driver)  # type: ignore[arg-type]
        await self.service.start()

    def _make_driver(self, uri: str, on_event: Callable[[GuestEvent], None]) -> SimDriver:
        self.driver = SimDriver(self.host, on_event)
        return self.driver

    def tell(self, event: GuestEvent) -> None:
        if self.driver is not None and self.loop.is_running():
            self.loop.call_soon_threadsafe(self.driver.on_event, event)

    def crash(self) -> None:
        """Stop between two steps of the loop, then close every socket, as the kernel does."""
        self._graves.append((self, asyncio.all_tasks(self.loop)))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)  # a step may be long beside other tests
        assert not self.thread.is_alive()
        selector = self.loop._selector  # type: ignore[attr-defined]
        nothing = os.open("/dev/null", os.O_RDWR)
        registered = set(selector.get_map())
        for descriptor in registered:
            selector.unregister(descriptor)
        # Those that wait for nothing at the moment: paused transports, and the local ends of relays; the
        # number of a transport that was closed may be somebody else's by now.
        transports = self.loop._transports.items()  # type: ignore[attr-defined]
        idle = {fd for fd, one in transports if one._sock is not None} | self._local_ends()
        for descriptor in registered | idle:
            os.dup2(nothing, descriptor)  # closes the socket; nobody else gets its number
        os.close(nothing)


    def _local_ends(self) -> set[int]:
        jobs = [*self.service._incoming, *self.service._sources.values()]
        sets = [job.relays for job in jobs]
        return {r._local.fileno() for s in sets if s for _, r in s.relays if r._local.fileno() >= 0}


class SimDriver:
    """Stands in for `xiatb.migration.driver.Driver`; what it does happens in the hypervisor's loop."""

    def __init__(self, host: Host, on_event: Callable[[GuestEvent], None]) -> None:
        self._host = host
        self.on_event = on_event

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to close."""

    async def host(self) -> HostFacts:
        return HostFacts(7002000, 9000000, ("pc-q35-7.2",))

    async def guest(self, name: str) -> GuestFacts | None:
        guest = self._host.guests.get(name)
        if guest is None or not guest.alive:
            return None
        return GuestFacts(name, "11111111-2222-3333-4444-555555555555", "tcg", "pc-q35-7.2", MEMORY, 1, "",
                          (), (), "00")  # fmt: skip

    async def state(self, name: str) -> str:
        guest = self._host.guests.get(name)
        if guest is None or not guest.alive:
            return "absent"
        return "running" if guest.wants else "paused"

    async def in_postcopy(self, name: str) -> bool:
        return False

    async def job_stats(self, name: str) -> dict[str, Any]:
        return {}

    async def ask_qemu(self, name: str, command: str, **arguments: Any) -> Any:
        raise DriverError("the simulated QEMU has no such command")

    async def set_downtime_limit(self, name: str, milliseconds: int) -> None:
        """QEMU is not there to be told."""

    async def resume(self, name: str) -> None:
        if guest := self._host.guests.get(name):
            guest.wants = True

    async def pause(self, name: str) -> None:
        if guest := self._host.guests.get(name):
            guest.wants = False

    async def destroy(self, name: str) -> None:
        if guest := self._host.guests.get(name):
            guest.end()

    async def abort(self, name: str) -> None:
        self._host.loop.call_soon_threadsafe(self._host.cancel_calls)

    async def migrate(self, name: str, desturi: str, parameters: dict[str, Any], flags: int) -> None:
        """libvirt's side of a migration; it goes on when the daemon that asked for it dies."""
        rpc = desturi.partition("socket=")[2]
        ram = parameters[libvirt.VIR_MIGRATE_PARAM_URI].removeprefix("unix://")
        work = self._host.migrate(self._host.guests[name], rpc, ram)
        future = asyncio.run_coroutine_threadsafe(work, self._host.loop)
        try:
            await asyncio.shield(asyncio.wrap_future(future))
        except (OSError, asyncio.IncompleteReadError, Cancelled) as error:
            raise DriverError(f"migration failed: {error!r}") from None


def _dying(pid: int) -> bool:
    """SIGKILL is on its way (proc(5): bit 8 of pending signals) or the process exits (PF_EXITING)."""
    try:
        lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        flags = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6])
    except OSError:
        return True
    pending = int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)
    return bool(pending & 1 << 8 or flags & 4)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _packet(procedure: int, kind: int, serial: int, status: int, body: bytes = b"") -> bytes:
    return struct.pack(">7I", 28 + len(body), PROGRAM, 1, procedure, kind, serial, status) + body


async def _read(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    length, _, _, procedure, _, serial, _ = struct.unpack(">7I", await reader.readexactly(28))
    return procedure, serial, await reader.readexactly(length - 28)


async def _call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, procedure: int, serial: int, body: bytes
) -> int:
    writer.write(_packet(procedure, CALL, serial, 0, body))
    await writer.drain()
    head = struct.unpack(">7I", await reader.readexactly(28))
    await reader.readexactly(head[0] - 28)
    return int(head[6])

