"""A simulated libvirtd with QEMU's migration: libvirt's peer-to-peer protocol (reference/migration.md 3.6).

Its RPC has libvirt's message heads, so that the daemon's gate finds Finish; its memory and disk streams go
through the same UNIX sockets as the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.migration import libvirtcalls, simmonitor
from tests.migration.simguest import BLOCKS, GUEST, PAGE, PAGES, Copy, NoSpaceError, SimHost, remove, resume
from xiatb.migration.rpcgate import PROGRAM

PREPARE, FINISH = 303, 306
HEAD = struct.Struct(">7I")
ITEM = struct.Struct(">II")
DEVICE, SWITCH, END = 1 << 30, 1 << 30 | 1, 1 << 30 | 2
Reach = Callable[[str], Awaitable[None]]
OnEvent = Callable[[str, str, dict[str, Any]], None]
PASSES = 3
UNABLE = "operation failed: job 'migration out' failed: Unable to write to socket"


class LibvirtError(Exception):
    """What libvirtd answers to a call that fails."""


async def call(reader: Any, writer: Any, procedure: int, data: bytes) -> dict[str, Any]:
    """One call over the peer connection; raises LibvirtError."""
    try:
        writer.write(HEAD.pack(28 + len(data), PROGRAM, 1, procedure, 0, 7, 0) + data)
        await writer.drain()
        head = HEAD.unpack(await reader.readexactly(28))
        answer = await reader.readexactly(head[0] - 28)
    except (OSError, EOFError):
        raise LibvirtError("Lost connection to destination host") from None
    if head[6]:
        raise LibvirtError(answer[:-4].decode())
    told: dict[str, Any] = json.loads(answer[:-4])
    return told


class Libvirtd:
    """One host's; dies with `die`, its QEMU processes live on. `reach(point)` is awaited at the points at
    which a scenario strikes."""

    def __init__(self, host: SimHost, socket: Path, reach: Reach) -> None:
        self.host = host
        self.world = host.world
        self.listeners: list[OnEvent] = []
        self.job: asyncio.Task[None] | None = None
        self.cancelled = False
        self.wants_postcopy = asyncio.Event()
        self._socket = socket
        self._reach = reach
        self._servers: list[Any] = []
        self._writers: list[Any] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Answer at the socket. A paused incoming copy that a predecessor has left is ended, and an outgoing
        one let run, as libvirt's own recovery does (qemuProcessRecoverMigrationIn and ...Out)."""
        self.host.libvirtd = self
        remove(self._socket)
        self._servers.append(await asyncio.start_unix_server(self._serve, str(self._socket)))
        copy = self.host.copy
        if copy is not None and copy.incoming and copy.state != "running" and not copy.postcopy:
            self.world.kill(copy)
        elif copy is not None and copy.state == "paused" and not copy.postcopy and not copy.io_error:
            self.spawn(resume(copy, self))

    def die(self) -> None:
        """Connections break; what was in progress is forgotten. Its QEMU processes live on."""
        self.host.libvirtd = None
        for task in list(self._tasks):
            task.cancel()
        self._close()

    def _close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """In nobody's context: a daemon that dies does not take it along."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever would have asked for it may have died

    def tell(self, kind: str, **data: Any) -> None:
        for listener in list(self.listeners):
            listener(GUEST, kind, data)

    def lost(self, copy: Copy, why: int) -> None:
        """A QEMU process has ended."""
        self.tell(f"lifecycle:5:{why}")
        if copy.incoming:
            self.host.defined = False

    # the destination

    async def _serve(self, reader: Any, writer: Any) -> None:
        self._writers.append(writer)
        mine: list[Copy] = []
        try:
            while True:
                head = HEAD.unpack(await reader.readexactly(28))
                body = await reader.readexactly(head[0] - 28)
                status, answer = 0, "{}"
                try:
                    if head[3] == PREPARE:
                        mine.append(await self._prepare(*libvirtcalls.told(body)))
                    elif head[3] == FINISH:
                        await self._finish(mine, int.from_bytes(body[-4:], "big"))
                except (LibvirtError, OSError) as error:
                    status, answer = 1, str(error)
                data = answer.encode() + bytes(4)
                writer.write(HEAD.pack(28 + len(data), PROGRAM, 1, head[3], 1, head[5], status) + data)
        except (EOFError, OSError):
            for copy in mine:  # the connection of the migration has closed: autodestroy
                if copy.incoming and copy.state != "running" and not copy.postcopy and copy.alive:
                    self.world.kill(copy)
        finally:
            writer.close()

    async def _prepare(self, told: dict[str, str], flags: int) -> Copy:
        resumed = bool(flags & libvirtcalls.RESUME)
        if self.host.oom:
            raise LibvirtError("internal error: process exited: cannot set up guest memory")
        copy = self.host.copy
        if resumed:
            if copy is not None:
                await simmonitor.unlocked(copy)
            if copy is None or copy.postcopy != "paused":
                raise LibvirtError("no post-copy migration to resume")
        else:
            copy = self.world.new_copy(self.host.name, incoming=True)
            copy.missing = set(range(PAGES))
            self.tell("lifecycle:2:1")
            if self.world.lock_s and self.world.second_monitor:
                again = simmonitor.Monitor(copy, lambda path: self.spawn(self._incoming(copy, path, True)))
                self.spawn(again.serve())
        self.spawn(self._incoming(copy, Path(told["migrate_uri"]), resumed))
        if disks := told.get("disks_uri"):
            self.spawn(self._nbd(copy, Path(disks)))
        await asyncio.sleep(0.01)
        return copy

    async def _finish(self, mine: list[Copy], cancelled: int) -> None:
        copy = mine[-1] if mine else self.host.copy
        if copy is None or not copy.alive:
            raise LibvirtError("domain is not running")
        if cancelled:
            if copy.incoming:
                self.world.kill(copy)
            return
        while not copy.loaded and copy.alive:
            await asyncio.sleep(0.05)
        if copy.alive and copy.state != "running":
            copy.incoming = False
            self.host.defined = True
            await resume(copy, self)
        await self._reach("started")
        if not copy.alive:
            raise LibvirtError("domain is not running")
        while copy.postcopy == "active" and copy.alive:
            await asyncio.sleep(0.05)
        if copy.postcopy or not copy.alive:
            raise LibvirtError("operation failed: post-copy failed")

    async def _accept(self, path: Path) -> tuple[Any, Any, Any]:
        remove(path)
        came: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()

        def connected(reader: Any, writer: Any) -> None:
            came.set_result((reader, writer))

        server = await asyncio.start_unix_server(connected, str(path))
        return server, came, path

    async def _incoming(self, copy: Copy, path: Path, resumed: bool) -> None:
        server, came, _ = await self._accept(path)
        try:
            died = asyncio.ensure_future(copy.died.wait())
            await asyncio.wait([came, died], return_when=asyncio.FIRST_COMPLETED)
            if not came.done():
                return
            reader, writer = came.result()
            work = asyncio.ensure_future(self._load(copy, reader, writer, resumed))
            await asyncio.wait([work, died], return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            died.cancel()
            await asyncio.gather(work, return_exceptions=True)
            writer.close()
        finally:
            server.close()
            remove(path)

    async def _load(self, copy: Copy, reader: Any, writer: Any, resumed: bool) -> None:
        try:
            if resumed:
                copy.postcopy = "active"
                writer.write(json.dumps(sorted(copy.missing)).encode() + b"\n")
            while True:
                number, size = ITEM.unpack(await reader.readexactly(ITEM.size))
                data = await reader.readexactly(size)
                if number < PAGES:
                    copy.put_page(number, data)
                elif number == SWITCH:
                    copy.missing = set(json.loads(data))
                    copy.postcopy, copy.loaded = "active", True
                    self.tell("MIGRATION", status="postcopy-active")
                elif number in (DEVICE, END):
                    writer.write(b"shut\n")
                    copy.postcopy, copy.loaded = "", True
                    self.tell("MIGRATION", status="completed")
                    return
        except (EOFError, OSError):
            if copy.postcopy:
                copy.broke = copy.broke or asyncio.get_running_loop().time()
                copy.postcopy = "paused"
                self.tell("MIGRATION", status="postcopy-paused")
            elif copy.incoming and copy.state != "running":
                self.world.kill(copy)  # load of migration failed: QEMU exits

    async def _nbd(self, copy: Copy, path: Path) -> None:
        server, came, _ = await self._accept(path)
        try:
            died = asyncio.ensure_future(copy.died.wait())
            await asyncio.wait([came, died], return_when=asyncio.FIRST_COMPLETED)
            if not came.done():
                return
            reader, writer = came.result()
            with contextlib.suppress(EOFError, OSError):
                while copy.alive:
                    number, size = ITEM.unpack(await reader.readexactly(ITEM.size))
                    data = await reader.readexactly(size)
                    try:
                        copy.write_block(number, data)
                    except NoSpaceError:
                        writer.write(b"E")
                        continue
                    writer.write(b"K")
            writer.close()
            died.cancel()
        finally:
            server.close()
            remove(path)

    # the source

    async def migrate(self, desturi: str, ram: str, nbd: str, *, postcopy: bool, recover: bool) -> None:
        """The whole migration; raises LibvirtError. Runs on when its caller dies."""
        self.cancelled = False
        self.wants_postcopy.clear()
        self.job = self.spawn(self._out(desturi.partition("socket=")[2], ram, nbd, postcopy, recover))
        await asyncio.wait([self.job])
        if self.job.cancelled():
            raise LibvirtError("libvirtd has died")
        self.job.result()

    def abort(self) -> None:
        self.cancelled = True

    async def _out(self, peer: str, ram: str, nbd: str, postcopy: bool, recover: bool) -> None:
        copy = self.host.copy
        assert copy is not None
        connections: list[Any] = []
        try:
            reader, writer = await self._connect(peer, connections)
            typed, flags = [("migrate_uri", libvirtcalls.uri(ram))], libvirtcalls.RESUME if recover else 0
            if nbd and not recover:
                typed.append(("disks_uri", libvirtcalls.uri(nbd)))
                flags = libvirtcalls.MIRROR
            xml = libvirtcalls.description(GUEST)
            await call(reader, writer, PREPARE, libvirtcalls.prepare(xml, *typed, flags=flags))
            if recover:
                await self._resume_out(copy, ram, connections)
            else:
                await self._carry(copy, ram, nbd, postcopy, connections, (reader, writer))
            await call(reader, writer, FINISH, libvirtcalls.finish(GUEST))
            self.world.kill(copy, 3)
            await self._reach("answered")
            self.host.defined = False
        except LibvirtError as error:
            if connections and not copy.postcopy:  # libvirt's farewell, for which it waits
                with contextlib.suppress(LibvirtError):
                    await call(reader, writer, FINISH, libvirtcalls.finish(GUEST, cancelled=1))
            for open_one in connections:
                open_one.close()
            if copy.alive and not copy.postcopy:
                self.spawn(resume(copy, self))
                await asyncio.sleep(0)
            elif copy.postcopy:
                self.spawn(self._pause(copy))
                await asyncio.sleep(0)
            raise LibvirtError(str(error)) from None
        finally:
            for open_one in connections:
                open_one.close()

    async def _connect(self, path: str, connections: list[Any]) -> tuple[Any, Any]:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise LibvirtError(f"unable to connect to {Path(path).name}: {error}") from None
        connections.append(writer)
        return reader, writer

    async def _carry(self, copy: Copy, ram: str, nbd: str, postcopy: bool, connections: list[Any],
                     rpc: tuple[Any, Any]) -> None:  # fmt: skip
        mirror: Any = None
        copy.dirty_blocks = set(range(BLOCKS))
        if nbd:
            mirror = await self._connect(nbd, connections)
            await self._blocks(copy, mirror, rpc, reach="storage")
        stream = await self._connect(ram, connections)
        copy.dirty_pages = set(range(PAGES))
        self.tell("MIGRATION", status="active")
        if postcopy:  # asked for at once by mode postcopy, later or never by hybrid
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wants_postcopy.wait(), 1.0)
        for number in range(1, PASSES + 1):
            self.tell("MIGRATION_PASS", **{"pass": number})
            await self._pages(copy, stream, rpc, reach={1: "first", 2: "later"}.get(number, ""))
            if mirror is not None:
                await self._blocks(copy, mirror, rpc)
            if self.wants_postcopy.is_set():
                break
        copy.state = "paused"
        self.tell("STOP")
        self.tell("MIGRATION", status="pre-switchover")
        await self._pause_before_switchover(copy, rpc)
        if mirror is not None:
            await self._blocks(copy, mirror, rpc)
        if postcopy and self.wants_postcopy.is_set():
            await self._switch(copy, stream, rpc)
            return
        await self._pages(copy, stream, rpc)
        await self._item(stream, DEVICE, b"device state")
        await self._shut(stream, rpc)

    async def _pause_before_switchover(self, copy: Copy, rpc: tuple[Any, Any]) -> None:
        """Cancelled now, QEMU lets the guest run on before libvirt 9.0 has seen that it does not run; libvirt
        then waits for that. Seen with a real guest, in cancel/switchover."""
        try:
            await self._step(rpc, "switchover")
        except LibvirtError:
            if self.cancelled:
                await resume(copy, self)
                while copy.alive and copy.state == "running":
                    await asyncio.sleep(0.01)
            raise

    async def _switch(self, copy: Copy, stream: Any, rpc: Any) -> None:
        """Device state goes ahead, then the call that starts the guest there, pages meanwhile."""
        copy.postcopy = "active"
        self.tell("MIGRATION", status="postcopy-active")
        await self._item(stream, SWITCH, json.dumps(sorted(copy.dirty_pages)).encode())
        self._rest = self.spawn(self._remainder(copy, stream))

    async def _remainder(self, copy: Copy, stream: Any) -> None:
        """Pages of a post-copy, half of them before the scenario strikes."""
        try:
            for count, number in enumerate(sorted(copy.dirty_pages)):
                if count == len(copy.dirty_pages) // 2:
                    while not self.world.running():
                        await asyncio.sleep(0.01)
                    await self._reach("postcopy")
                await self._item(stream, number, copy.page(number))
                await asyncio.sleep(0.001)
            await self._item(stream, END, b"")
            if await stream[0].readline() != b"shut\n":
                raise LibvirtError("the stream broke")
        except (LibvirtError, OSError):
            if copy.alive:
                await self._pause(copy)

    async def _pause(self, copy: Copy) -> None:
        """QEMU notices that its stream has gone."""
        if self.world.pause_s:
            await asyncio.sleep(self.world.pause_s)
        copy.postcopy = "paused"
        self.tell("MIGRATION", status="postcopy-paused")

    async def _resume_out(self, copy: Copy, ram: str, connections: list[Any]) -> None:
        stream = await self._connect(ram, connections)
        line = await stream[0].readline()
        if not line:
            raise LibvirtError("the destination did not say which pages it has")
        copy.dirty_pages = set(json.loads(line))
        copy.postcopy = "active"
        self.tell("MIGRATION", status="postcopy-active")
        self._rest = self.spawn(self._remainder(copy, stream))

    def resume_qemu(self, path: str) -> None:
        """QEMU's own `migrate` with `resume`; libvirt only sees how it ends."""
        copy = self.host.copy
        if copy is None or copy.postcopy != "paused":
            raise LibvirtError("Cannot resume if there is no paused migration")
        self.tell("MIGRATION", status="postcopy-recover")
        self.spawn(self._unattended(copy, path))

    async def _unattended(self, copy: Copy, path: str) -> None:
        connections: list[Any] = []
        try:
            await self._resume_out(copy, path, connections)
            await self._rest
        except LibvirtError:
            copy.postcopy = "paused"
            self.tell("MIGRATION", status="postcopy-paused")
        finally:
            for open_one in connections:
                open_one.close()
        if copy.alive and copy.postcopy == "active":
            self.tell("MIGRATION", status="completed")
            await asyncio.sleep(0.05)
            self.world.kill(copy, 3)

    async def _step(self, rpc: tuple[Any, Any], reach: str = "") -> None:
        """A moment in which the job can be cancelled or notice that its peer has gone."""
        if reach:
            await self._reach(reach)
        await asyncio.sleep(0.001)
        if self.cancelled:
            raise LibvirtError("operation aborted: migration out job: canceled by client")
        if rpc[0].at_eof():
            raise LibvirtError("Lost connection to destination host")

    async def _pages(self, copy: Copy, stream: Any, rpc: Any, reach: str = "") -> None:
        wanted = sorted(copy.dirty_pages)
        for count, number in enumerate(wanted):
            if self.wants_postcopy.is_set():
                return
            copy.dirty_pages.discard(number)
            await self._item(stream, number, copy.page(number))
            await self._step(rpc, reach if count == len(wanted) // 2 else "")
            if stream[0].at_eof():
                raise LibvirtError(UNABLE)

    async def _item(self, stream: Any, number: int, data: bytes) -> None:
        try:
            stream[1].write(ITEM.pack(number, len(data)) + data)
            await stream[1].drain()
        except OSError:
            raise LibvirtError(UNABLE) from None

    async def _shut(self, stream: Any, rpc: Any) -> None:
        """Wait until the destination has loaded everything."""
        read = asyncio.ensure_future(stream[0].readline())
        while not read.done():
            await asyncio.wait([read], timeout=0.1)
            if not read.done():
                await self._step(rpc)
        if read.exception() is not None or read.result() != b"shut\n":
            raise LibvirtError("operation failed: migration out job: return path failed")

    async def _blocks(self, copy: Copy, mirror: Any, rpc: Any, reach: str = "") -> None:
        """Copy all dirty blocks and wait for each answer."""
        count = 0
        while copy.dirty_blocks:
            number = copy.dirty_blocks.pop()
            await self._item(mirror, number, copy.disk.read_bytes()[number * PAGE : (number + 1) * PAGE])
            read = asyncio.ensure_future(mirror[0].read(1))
            while not read.done():
                await asyncio.wait([read], timeout=0.1)
                if not read.done():
                    await self._step(rpc)
            if read.exception() is not None or not read.result():
                raise LibvirtError("migration of disk vda failed: Input/output error")
            if read.result() == b"E":
                raise LibvirtError("migration of disk vda failed: No space left on device")
            count += 1
            await self._step(rpc, reach if count == BLOCKS // 2 else "")
