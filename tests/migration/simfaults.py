"""Strikes each fault of the table into a simulated migration, once, at a given point; tells the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.migration import simtime
from tests.migration.simdaemons import KERNEL, Scene, owned_task
from tests.migration.simguest import GUEST
from xiatb.migration.failure import MigrationError

BACK_S = 1.0
"""What the lab's supervisor needs to start a dead daemon again."""
VIRT_S = 45.0
"""A libvirtd that is long in coming back."""
CUT_S = 150.0
"""A cut lasts longer than any stream of the transport."""


@dataclass
class Ended:
    """What a scenario left behind. `code` "": moved; "daemon": the source's daemon died under its user."""

    code: str
    message: str
    hint: str
    running: list[str]
    history: list[str]
    leftovers: list[str]
    paused: bool = False
    problems: list[str] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    """Decisions that the user was shown."""
    answered_s: float = 0.0
    """From the blow until the user was told."""
    phases: list[str] = field(default_factory=list)
    """What the user was shown, in order."""


class Strike:
    """One fault at one point of one migration."""

    def __init__(self, scene: Scene, fault: str, point: str) -> None:
        self.scene = scene
        self.fault = fault
        self.point = point
        self.struck = False
        self.at = 0.0
        self.virt_s = VIRT_S
        self.later: list[asyncio.Task[None]] = []

    async def reach(self, point: str) -> None:
        if point != self.point or self.struck:
            return
        self.struck = True
        self.at = asyncio.get_running_loop().time()
        # Not in the context of whom it may kill.
        await asyncio.shield(asyncio.ensure_future(self.now()))

    async def now(self) -> None:
        """Do it."""
        what: dict[str, Callable[[], Awaitable[None]]] = {
            "cut": self._cut, "stall": self._stall, "loss": self._loss,
            "destination-daemon": lambda: self._daemon("hv2"), "source-daemon": lambda: self._daemon("hv1"),
            "destination-qemu": self._qemu, "destination-libvirtd": lambda: self._libvirtd("hv2"),
            "source-libvirtd": lambda: self._libvirtd("hv1"), "cut+source-libvirtd": self._cut_and_libvirtd,
            "disk-full": self._disk_full, "out-of-memory": self._out_of_memory,
            "wrong-image": self._wrong_image, "cancel": self._cancel, "nothing": self._nothing,
        }  # fmt: skip
        await what[self.fault]()

    def _after(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await work()

        self.later.append(asyncio.ensure_future(wait()))

    async def _mend(self) -> None:
        self.scene.link.mend()

    async def _nothing(self) -> None:
        """The scenario has a fault of its own."""

    async def _cut(self) -> None:
        self.scene.link.cut()
        self._after(CUT_S, self._mend)

    async def _stall(self) -> None:
        self.scene.link.cut()
        self._after(10.0, self._mend)

    async def _loss(self) -> None:
        self.scene.link.rate /= 20

    async def _daemon(self, name: str) -> None:
        daemon = self.scene.daemons[name]

        async def kill() -> None:
            await daemon.kill()
            self._after(BACK_S, daemon.start)

        # The caller may be this very daemon's work.
        self.later.append(asyncio.ensure_future(kill()))
        await asyncio.sleep(0.05)

    async def _qemu(self) -> None:
        copy = self.scene.world.hosts["hv2"].copy
        assert copy is not None
        self.scene.world.kill(copy)

    async def _cut_and_libvirtd(self) -> None:
        """The path is back while libvirtd is not."""
        self.scene.link.cut()
        self._after(CUT_S, self._mend)
        self._after(CUT_S - self.virt_s / 2, lambda: self._libvirtd("hv1"))

    async def _libvirtd(self, name: str) -> None:
        virt = self.scene.world.hosts[name].libvirtd

        async def back() -> None:
            await self.scene.start_libvirtd(name)

        self.later.append(asyncio.ensure_future(self._die(virt)))
        self._after(self.virt_s, back)
        await asyncio.sleep(0.05)

    async def _die(self, virt: Any) -> None:
        virt.die()

    async def _disk_full(self) -> None:
        self.scene.world.hosts["hv2"].full = True

    async def _out_of_memory(self) -> None:
        """The kernel ends the largest process."""
        await self._qemu()

    async def _wrong_image(self) -> None:
        """Another image under the same name; what QEMU has open is not touched by that."""
        (self.scene.world.hosts["hv2"].root / KERNEL).write_bytes(b"another kernel")

    async def _cancel(self) -> None:
        self.scene.daemons["hv1"].service.cancel(GUEST)


def play(
    base: Path, monkeypatch: Any, fault: str, point: str, before: bool = False, virt_s: float = VIRT_S,
    **options: Any,
) -> Ended:  # fmt: skip
    """A whole migration with `fault` at `point` ("started": the destination runs the guest, its answer to
    libvirt's Finish is not out yet); `before`: struck before the migration is asked for; a libvirtd that dies
    is back after `virt_s`."""

    async def scenario() -> Ended:
        scene = Scene(base, monkeypatch)
        strike = Strike(scene, fault, point)
        strike.virt_s = virt_s
        await scene.start(strike.reach)
        await asyncio.sleep(1.0)
        if before:
            await strike.now()
        ended = await _ask(scene, options)
        ended.answered_s = asyncio.get_running_loop().time() - strike.at
        await scene.settle()
        while not all(work.done() for work in strike.later):
            await asyncio.gather(*strike.later)
        ended.phases = [str(event["phase"]) for event in scene.events if event["event"] == "phase"]
        ended.told = [event for event in scene.events if event["event"] == "decision"]
        ended.paused = await _make_room(scene)
        _judge(scene, ended)
        if not before and not strike.struck:
            ended.problems.append(f"the migration never came to {point}")
        await scene.stop()
        return ended

    ended: Ended = simtime.run(scenario, monkeypatch, owned_task)
    return ended


async def _make_room(scene: Scene) -> bool:
    """A guest that has stopped for want of room goes on when there is some, and its user says so; True when
    there was one."""
    host = scene.world.hosts["hv2"]
    host.full = False
    if host.copy is None or not host.copy.io_error:
        return False
    host.copy.io_error = False
    await scene.daemons["hv2"].service._driver.resume(GUEST)
    await asyncio.sleep(1.0)
    return True


async def _ask(scene: Scene, options: dict[str, Any]) -> Ended:
    """As the user does; what they are told."""
    ended = Ended("", "", "", [], [], [])
    try:
        result = await scene.migrate(**options)
        ended.message = str(result["note"])
    except MigrationError as error:
        ended.code, ended.message, ended.hint = error.code, error.message, error.hint
    except asyncio.CancelledError:
        ended.code = "daemon"
    return ended


def _judge(scene: Scene, ended: Ended) -> None:
    """The rules of every cell; a lost guest has its whole disk at the destination, and only there."""
    world, problems = scene.world, ended.problems
    ended.running, ended.history, ended.leftovers = world.running(), world.history, scene.leftovers()
    if ended.leftovers:
        problems.append(f"left over: {ended.leftovers}")
    copies = {name: host.copy for name, host in world.hosts.items() if host.copy is not None}
    if len(copies) > 1:
        problems.append("two copies")
    for name, copy in copies.items():
        if world.disk(name).read_bytes() != bytes(world.truth_disk):
            problems.append("the disk is not what the guest has written")
        if bytes(copy.memory) != bytes(world.truth_memory) or copy.missing:
            problems.append("the memory is not what the guest has written")
        if not world.hosts[name].defined:
            problems.append(f"the guest is not defined on {name}")
    for name, host in world.hosts.items():
        if copies and host.defined and name not in copies:
            problems.append(f"a definition is left on {name}")
    kept = copies or {"hv2": None}
    if not copies and world.disk("hv2").read_bytes() != bytes(world.truth_disk):
        problems.append("the disk of the lost guest is not what it has written")
    for name, host in world.hosts.items():
        if world.disk(name).exists() != (name in kept):
            problems.append(f"disk on {name}: {world.disk(name).exists()}")
        if host.invited != (name in ended.running):
            problems.append(f"route on {name}: {host.invited}")
