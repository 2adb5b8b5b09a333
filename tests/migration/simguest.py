"""Simulated hosts with simulated QEMU processes: what runs where, memory and disks, and the rules about both.

`World.start` refuses a second running copy, which is the invariant that everything else is for.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError

PAGE = 4096
PAGES = 64
BLOCKS = 32
GUEST = "vm1"
UUID = "11111111-2222-3333-4444-555555555555"
TICK = 0.02


class NoSpaceError(OSError):
    """The file system at a destination is full."""


@dataclass
class Copy:
    """A QEMU process with the guest or a part of it. `missing`: pages that are still at the source."""

    host: SimHost
    disk: Path
    memory: bytearray
    pid: int
    incoming: bool = False
    state: str = "paused"
    postcopy: str = ""
    missing: set[int] = field(default_factory=set)
    dirty_pages: set[int] = field(default_factory=set)
    dirty_blocks: set[int] = field(default_factory=set)
    alive: bool = True
    loaded: bool = True
    io_error: bool = False
    broke: float = 0.0
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.thawed.set()

    def write_block(self, number: int, data: bytes) -> None:
        """Raises NoSpaceError when the host's disk is full."""
        if self.host.full:
            raise NoSpaceError(28, "No space left on device")
        with self.disk.open("r+b") as file:
            file.seek(number * PAGE)
            file.write(data)

    def page(self, number: int) -> bytes:
        return bytes(self.memory[number * PAGE : (number + 1) * PAGE])

    def put_page(self, number: int, data: bytes) -> None:
        self.memory[number * PAGE : (number + 1) * PAGE] = data
        self.missing.discard(number)


@dataclass
class SimHost:
    """One hypervisor host below directory `root`. `libvirtd` is None while it is dead."""

    name: str
    root: Path
    world: World
    copy: Copy | None = None
    defined: bool = False
    full: bool = False
    memory_free: int = 1 << 32
    oom: bool = False
    libvirtd: Any = None
    invited: bool = False

    @property
    def runtime(self) -> Path:
        return self.root / "xtb"

    @property
    def disks(self) -> Path:
        return self.root / "images"

    @property
    def state_dir(self) -> Path:
        return self.root / "state"


class World:
    """Both hosts, and what guest memory and disk must be like. `history` tells what happened to copies.

    `lock_s`: so long after a post-copy has broken QEMU's main lock at its destination is held. Only then have
    guests a second monitor, unless `second_monitor` is false. `pause_s`: what QEMU at the source needs to
    notice that the stream of its post-copy has gone.
    """

    lock_s = 0.0
    second_monitor = True
    pause_s = 0.0

    def __init__(self, base: Path) -> None:
        self.hosts = {name: SimHost(name, base / name, self) for name in ("hv1", "hv2")}
        self.truth_memory = bytearray(PAGES * PAGE)
        self.truth_disk = bytearray(BLOCKS * PAGE)
        self.writes = 0
        self.history: list[str] = []
        self.dead_guest = False
        self._pids = iter(range(1000, 9999))
        for host in self.hosts.values():
            for directory in (host.runtime, host.disks, host.state_dir):
                directory.mkdir(parents=True)

    def locked(self, copy: Copy) -> bool:
        """Nothing in band is answered: the guest waits for a page with QEMU's main lock held."""
        now = asyncio.get_running_loop().time()
        return copy.postcopy == "paused" and now < copy.broke + self.lock_s

    def disk(self, host: str) -> Path:
        return self.hosts[host].disks / f"{GUEST}.qcow2"

    def boot(self, host: str) -> None:
        """The guest runs on `host`, with its disk."""
        self.disk(host).write_bytes(bytes(self.truth_disk))
        copy = self.new_copy(host)
        copy.memory[:] = self.truth_memory
        self.hosts[host].defined = True
        self.start(copy)

    def new_copy(self, host: str, *, incoming: bool = False) -> Copy:
        where = self.hosts[host]
        assert where.copy is None, f"a second QEMU process on {host}"
        where.copy = Copy(where, self.disk(host), bytearray(PAGES * PAGE), next(self._pids), incoming)
        where.copy.loaded = not incoming
        return where.copy

    def start(self, copy: Copy) -> None:
        others = [h.copy for h in self.hosts.values() if h.copy not in (None, copy)]
        running = [o.host.name for o in others if o.state == "running"]
        assert not running, f"the guest runs on {running} and would run on {copy.host.name} too"
        copy.state = "running"
        self.history.append(f"runs on {copy.host.name}")

    def kill(self, copy: Copy, why: int = 5) -> None:
        """The process ends; `why` as libvirt tells it (VIR_DOMAIN_EVENT_STOPPED_FAILED, _MIGRATED 3)."""
        if copy.state == "running" or copy.postcopy:
            self.history.append(f"died on {copy.host.name}")
        copy.alive, copy.state = False, "gone"
        copy.died.set()
        copy.thawed.set()
        if copy.host.copy is copy:
            copy.host.copy = None
        if copy.host.libvirtd is not None:
            copy.host.libvirtd.lost(copy, why)

    def running(self) -> list[str]:
        return [h.name for h in self.hosts.values() if h.copy is not None and h.copy.state == "running"]

    async def live(self) -> None:
        """The guest's own work: wherever it runs it writes a page and a block, in turn."""
        while True:
            await asyncio.sleep(TICK)
            for host in self.hosts.values():
                if host.copy is not None and host.copy.state == "running" and not host.copy.io_error:
                    self._work(host.copy)

    def _work(self, copy: Copy) -> None:
        number = self.writes + 1
        page, block = number % PAGES, number % BLOCKS
        if page in copy.missing:
            return  # a page fault that waits for the source
        data = number.to_bytes(8, "big") * (PAGE // 8)
        try:
            copy.write_block(block, data)
        except NoSpaceError:
            copy.io_error = True
            copy.state = "paused"
            return
        copy.put_page(page, data)
        copy.dirty_pages.add(page)
        copy.dirty_blocks.add(block)
        self.truth_disk[block * PAGE : (block + 1) * PAGE] = data
        self.truth_memory[page * PAGE : (page + 1) * PAGE] = data
        self.writes = number


class SimFence:
    """migration.fence.Fence over simulated processes."""

    world: World

    def __init__(self, process: tuple[int, int]) -> None:
        self.process = process

    @classmethod
    def of(cls, guest: str) -> SimFence:
        raise AssertionError("bound to a host by `fence_of`")

    def _copy(self) -> Copy | None:
        copies = [h.copy for h in self.world.hosts.values()]
        return next((c for c in copies if c is not None and c.pid == self.process[0]), None)

    def freeze(self) -> None:
        copy = self._copy()
        if copy is None:
            raise XiatbError("the guest's process is gone")
        copy.thawed.clear()

    def thaw(self) -> None:
        copy = self._copy()
        if copy is not None:
            copy.thawed.set()

    def kill(self) -> None:
        copy = self._copy()
        if copy is not None:
            self.world.kill(copy)


async def resume(copy: Copy, libvirtd: Any) -> None:
    """QEMU's `cont`: waits while the process is stopped; nothing happens to a process that has gone."""
    await copy.thawed.wait()
    if copy.alive and copy.state != "running":
        copy.host.world.start(copy)
        libvirtd.tell("RESUME")


def remove(path: Path) -> None:
    """A file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
