"""Two real migration services over simulated hypervisors and links, which can be killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
import socket
import weakref
from pathlib import Path
from typing import Any

from tests.migration import simmonitor
from tests.migration.samples import HID, KEYS, SIDS
from tests.migration.simguest import GUEST, UUID, SimFence, SimHost, World
from tests.migration.simlibvirt import Libvirtd, LibvirtError, Reach
from tests.migration.simwires import Link, SimCarrier
from xiatb.migration import destjob, handshake, hosting, service, sourcejob
from xiatb.migration.config import DaemonConfig, Peer
from xiatb.migration.driver import DriverError, GuestEvent, HostFacts
from xiatb.migration.facts import GuestFacts
from xiatb.migration.messages import Disk, Message, Request, decode
from xiatb.migration.options import Options

OWNER: contextvars.ContextVar[Any] = contextvars.ContextVar("owner", default=None)
LOCATOR = {"hv1": f"RE AD:{'1' * 40} {HID}", "hv2": f"RE AD:{'2' * 40} {HID}"}
KERNEL = "vmlinuz"


def owned_task(loop: Any, work: Any, context: Any = None) -> asyncio.Task[Any]:
    """Task factory: a daemon's tasks are known, so that they can die with it."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.tasks.add(task)
    return task


class SimDriver:
    """migration.driver.Driver over the host's simulated libvirtd."""

    def __init__(self, host: SimHost, on_event: Any) -> None:
        self._host = host
        self._on_event = on_event

    def _virt(self) -> Libvirtd:
        virt = self._host.libvirtd
        if virt is None:
            raise DriverError("Cannot recv data: Connection reset by peer")
        if self._hear not in virt.listeners:
            virt.listeners.append(self._hear)
        return virt  # type: ignore[no-any-return]

    def _hear(self, guest: str, kind: str, data: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        context = OWNER_CONTEXTS.get(self)
        loop.call_soon(self._on_event, GuestEvent(guest, kind, int(loop.time() * 1e9), data), context=context)

    def deaf(self) -> None:
        virt = self._host.libvirtd
        if virt is not None and self._hear in virt.listeners:
            virt.listeners.remove(self._hear)

    async def open(self) -> None:
        self._virt()

    async def close(self) -> None:
        self.deaf()

    async def host(self) -> HostFacts:
        self._virt()
        return HostFacts(7002000, 9000000, ("pc-q35-7.2",))

    async def guest(self, name: str) -> GuestFacts | None:
        self._virt()
        copy = self._host.copy
        if copy is None:
            return None
        disks = (("vda", str(copy.disk), "qcow2"),)
        kernel = (str(self._host.root / KERNEL),)
        return GuestFacts(name, UUID, "tcg", "pc-q35-7.2", 64 << 20, 1, "tap0", disks, kernel, "")

    async def state(self, name: str) -> str:
        self._virt()
        copy = self._host.copy
        if copy is None:
            return "off" if self._host.defined else "absent"
        return copy.state

    async def migrate(self, name: str, desturi: str, parameters: dict[str, Any], flags: int) -> None:
        virt = self._virt()
        ram, nbd = ("migrate_uri", "disks_uri")
        try:
            await virt.migrate(
                desturi, parameters[ram].removeprefix("unix://"),
                parameters.get(nbd, "").removeprefix("unix://"),
                postcopy=bool(flags & 1 << 15), recover=bool(flags & 1 << 19),
            )  # fmt: skip
        except LibvirtError as error:
            raise DriverError(str(error)) from None

    async def abort(self, name: str) -> None:
        if self._host.libvirtd is not None:
            self._virt().abort()

    async def job_stats(self, name: str) -> dict[str, Any]:
        return {}

    async def completed_stats(self, name: str) -> dict[str, Any]:
        return {}

    async def in_postcopy(self, name: str) -> bool:
        self._virt()
        return self._host.copy is not None and self._host.copy.postcopy != ""

    async def ask_qemu(self, name: str, command: str, **arguments: Any) -> Any:
        if command != "migrate":
            raise DriverError("the simulated QEMU has no such command")
        try:
            self._virt().resume_qemu(arguments["uri"].removeprefix("unix:"))
        except LibvirtError as error:
            raise DriverError(str(error)) from None

    async def start_postcopy(self, name: str) -> None:
        self._virt().wants_postcopy.set()

    async def resume(self, name: str) -> None:
        from tests.migration.simguest import resume

        virt = self._virt()
        if self._host.copy is not None and self._host.copy.state == "paused":
            await resume(self._host.copy, virt)

    async def pause(self, name: str) -> None:
        virt = self._virt()
        if self._host.copy is not None and self._host.copy.state == "running":
            self._host.copy.state = "paused"
            virt.tell("STOP")

    async def destroy(self, name: str) -> None:
        self._virt()
        if self._host.copy is not None:
            self._host.world.kill(self._host.copy)
        self._host.defined = False

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("set_", "limit_")):
            raise AttributeError(name)

        async def tune(*_: Any) -> None:
            self._virt()

        return tune


OWNER_CONTEXTS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class SimNode:
    """migration.nodeaccess.NodeAccess: a guest that runs here and was invited joins at once."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._tasks: set[Any] = set()

    def expect(self, hid: str, port: str, on_joined: Any = None) -> None:
        self._host.invited = True
        if on_joined is not None:
            task = asyncio.ensure_future(self._join(on_joined))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _join(self, on_joined: Any) -> None:
        while self._host.copy is None or self._host.copy.state != "running":
            await asyncio.sleep(0.01)
            if not self._host.invited:
                return
        on_joined(LOCATOR[self._host.name], int(asyncio.get_running_loop().time() * 1e9))

    def detach(self, hid: str) -> None:
        self._host.invited = False

    def redirect(self, hid: str, to: str, seconds: float) -> None:
        self.detach(hid)

    async def ask(self, op: str, **arguments: Any) -> None:
        """No delegation in advance: the guest joins when it runs."""

    def locator(self) -> str:
        return ""

    async def settle(self) -> None:
        return


class SimDaemon:
    """The migration daemon of one host: `start`, `kill` (as SIGKILL does), `start` again."""

    def __init__(self, host: SimHost, link: Link, network: dict[str, SimCarrier], peer: str) -> None:
        self.host = host
        self.tasks: weakref.WeakSet[Any] = weakref.WeakSet()
        self.service: service.MigrationService
        self.alive = False
        self._link = link
        self._network = network
        self._peer = peer
        self._key = KEYS[0] if host.name == "hv1" else KEYS[1]

    def run(self, work: Any) -> asyncio.Task[Any]:
        """A coroutine as a part of this daemon."""
        context = contextvars.copy_context()
        context.run(OWNER.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def start(self) -> None:
        await self.run(self._start())

    async def _start(self) -> None:
        host = self.host
        index = 1 if host.name == "hv1" else 0
        config = DaemonConfig(
            lab="t", host=host.name, key=host.root / "key", state_dir=host.state_dir,
            socket=host.root / "sock",
            peers={self._peer: Peer(self._peer, SIDS[index], self._peer)}, uri=host.name,
            libvirt_socket=host.root / "virt", runtime=host.runtime, disks=host.disks, images=host.root,
        )  # fmt: skip
        carrier = SimCarrier(host.name, self._link, self._network)
        self.carrier = carrier
        self.service = service.MigrationService(
            config, self._key, carrier, lambda uri, on_event: SimDriver(host, on_event)  # type: ignore[arg-type,return-value]
        )
        OWNER_CONTEXTS[self.service._driver] = contextvars.copy_context()
        await self.service.start()
        self.alive = True

    async def kill(self) -> None:
        """At once: nothing that it would still do is done, its sockets and journal stay as they are."""
        self.alive = False
        kept = _snapshot(self.host)
        self.service._driver.deaf()  # type: ignore[attr-defined]
        self.carrier.die()
        jobs = [*self.service._sources.values(), *self.service._incoming]
        for job in jobs:
            if job._timer is not None:
                job._timer.cancel()
            job.machine.take_actions()
            job.machine.finished = True
            for _, listener in getattr(getattr(job, "_channels", None), "_listeners", []):
                listener.close()
        doomed = [task for task in self.tasks if task is not asyncio.current_task() and not task.done()]
        for task in doomed:
            task.cancel()
        await asyncio.wait([asyncio.ensure_future(asyncio.gather(*doomed, return_exceptions=True))])
        _restore(kept)

    def idle(self) -> bool:
        return self.alive and not self.service._sources and not self.service._incoming


def _snapshot(host: SimHost) -> dict[Path, bytes | None]:
    """Files (None: a socket) that a process which is killed leaves behind. The sockets at the destination are
    not its own, but QEMU's."""
    places = (host.runtime, host.state_dir / "migrations", host.disks)
    found = [path for place in places if place.exists() for path in place.iterdir()]
    files = [path for path in found if not path.is_fifo()]
    own = [path for path in files if host.name == "hv1" or not path.is_socket()]
    return {path: None if path.is_socket() else path.read_bytes() for path in own}


def _restore(kept: dict[Path, bytes | None]) -> None:
    for path, content in kept.items():
        if path.exists():
            continue
        if content is not None:
            path.write_bytes(content)
        else:
            with socket.socket(socket.AF_UNIX) as stale:
                stale.bind(str(path))


def patch(monkeypatch: Any, world: World) -> None:
    """Put the simulated parts in the place of libvirt, QEMU's process, qemu-img and the node."""
    def fence(process: tuple[int, int]) -> SimFence:
        made = SimFence(process)
        made.world = world
        return made

    def fence_of(guest: str, pids: Path) -> SimFence:
        host = OWNER.get().host
        return fence((host.copy.pid, 1) if host.copy is not None else (0, 0))

    fake_fence: Any = functools.partial(fence)
    fake_fence.of = fence_of
    for module in (service, sourcejob):
        monkeypatch.setattr(module, "Fence", fake_fence)
    monkeypatch.setattr(service, "NodeAccess", lambda control: SimNode(OWNER.get().host))

    async def inspect(target: str, path: str, form: str, *_: Any) -> Disk:
        size = Path(path).stat().st_size
        return Disk(target=target, path=path, size=size, format=form, allocated=size)

    async def create(disk: Disk, *_: Any) -> None:
        Path(disk.path).write_bytes(bytes(disk.size))

    monkeypatch.setattr(hosting, "inspect_disk", inspect)
    monkeypatch.setattr(destjob, "create_disk", create)
    monkeypatch.setattr(hosting, "memory_free", lambda reserve: OWNER.get().host.memory_free)
    monkeypatch.setattr(service, "identity_of", lambda guests, name: _identity())
    monkeypatch.setattr(handshake, "decode", _decode_here)


def _identity() -> Any:
    from xiatb.migration.facts import GuestIdentity

    return GuestIdentity(hid=HID, port="tap0")


def _decode_here(value: Any) -> Message:
    """Both hosts have the same paths in their own file systems; here they are directories."""
    message = decode(value)
    if isinstance(message, Request):
        me = OWNER.get().host.name
        other = {"hv1": "hv2", "hv2": "hv1"}[me]
        disks = tuple(
            dataclasses.replace(disk, path=disk.path.replace(f"/{other}/", f"/{me}/"))
            for disk in message.disks
        )
        files = tuple(path.replace(f"/{other}/", f"/{me}/") for path in message.files)
        return dataclasses.replace(message, disks=disks, files=files)
    return message


class Scene:
    """A guest on hv1 that is to move to hv2, with everything around it."""

    def __init__(self, base: Path, monkeypatch: Any) -> None:
        self.world = World(base)
        for host in self.world.hosts.values():
            (host.root / KERNEL).write_bytes(b"one kernel")
        patch(monkeypatch, self.world)
        self.link = Link()
        network: dict[str, SimCarrier] = {}
        one, two = self.world.hosts.values()
        self.daemons = {
            "hv1": SimDaemon(one, self.link, network, "hv2"),
            "hv2": SimDaemon(two, self.link, network, "hv1"),
        }
        self.events: list[dict[str, Any]] = []
        self._live: Any = None

    async def start(self, reach: Reach) -> None:
        self.reach = reach
        self._live = asyncio.ensure_future(self.world.live())
        for name in self.daemons:
            await self.start_libvirtd(name)
        self.world.boot("hv1")
        self.world.hosts["hv1"].invited = True
        for daemon in self.daemons.values():
            await daemon.start()

    async def start_libvirtd(self, name: str) -> None:
        host = self.world.hosts[name]
        await Libvirtd(host, host.root / "virt", self.reach).start()

    def migrate(self, **options: Any) -> asyncio.Task[Any]:
        """The migration as hv1's daemon does it; ends with CancelledError when the daemon dies."""
        daemon = self.daemons["hv1"]
        work = daemon.service.migrate(
            GUEST, "hv2", storage=True, emit=self.events.append, options=Options(**options)
        )
        return daemon.run(work)

    async def settle(self, seconds: float = 400.0) -> None:
        """Wait until nobody has anything left to do."""
        async with asyncio.timeout(seconds):
            while not all(daemon.idle() for daemon in self.daemons.values()):
                await asyncio.sleep(0.1)
        await asyncio.sleep(5.0)

    def leftovers(self) -> list[str]:
        """Files of the migration that are still there, on both hosts."""
        found: list[str] = []
        for host in self.world.hosts.values():
            places = (host.runtime, host.state_dir / "migrations")
            found += [str(path) for place in places if place.exists() for path in place.iterdir()]
        copies = [host.copy for host in self.world.hosts.values() if host.copy]
        monitors = {str(path) for copy in copies for path in simmonitor.paths_of(copy)}
        return [path for path in found if path not in monitors]

    async def stop(self) -> None:
        self._live.cancel()
        for daemon in self.daemons.values():
            if daemon.alive:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(daemon.run(daemon.service.stop()), 60)
        for host in self.world.hosts.values():
            if host.libvirtd is not None:
                host.libvirtd.die()
