"""Explores all interleavings of messages, events, faults, cancellation and timers with a model of libvirt's
peer-to-peer migration, and asserts that the guest runs exactly once and never loses its disk."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.migration.samples import CAPABILITIES, CHANNELS, REQUEST
from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.source import SourceMachine

FAR = 1e9


@dataclass
class World:
    """Both machines, the two directions of the control stream, event queues, and the hypervisors' truth.

    `stage` of libvirt: idle, copying (destination's QEMU is there, paused), stopped (source paused), resumed
    (destination runs), over.
    """

    source: SourceMachine
    destination: DestinationMachine
    out: list[m.Message] = field(default_factory=list)
    back: list[m.Message] = field(default_factory=list)
    source_events: list[tuple[str, Any]] = field(default_factory=list)
    destination_events: list[tuple[str, Any]] = field(default_factory=list)
    stage: str = "idle"
    source_runs: bool = True
    destination_runs: bool = False
    destination_copy: bool = False
    source_disk: bool = True
    destination_disk: bool = False
    cut: bool = False
    cancels: int = 1
    cuts: int = 1
    faults: int = 1
    now: float = 0.0

    def key(self) -> str:
        s, d = dict(vars(self.source)), dict(vars(self.destination))
        for one in (s, d):
            one.pop("deadline")
            one.pop("_reason")
        rest = {k: v for k, v in vars(self).items() if k not in ("source", "destination", "now")}
        return repr((s, d, rest))


def perform(world: World) -> None:
    for action in world.source.take_actions():
        if isinstance(action, a.Send) and not world.cut:
            world.out.append(action.message)
        elif isinstance(action, a.StartTransfer):
            world.stage, world.destination_copy = "copying", True
        elif isinstance(action, a.CancelTransfer):
            fail(world)
        elif isinstance(action, a.DestroyHere):
            world.source_runs = False
        elif isinstance(action, a.RemoveDisks):
            world.source_disk = False
    for action in world.destination.take_actions():
        if isinstance(action, a.Send) and not world.cut:
            world.back.append(action.message)
        elif isinstance(action, a.Prepare):
            world.destination_disk = True
            world.destination_events.append(("prepared", None))
        elif isinstance(action, a.Clean):
            clean(world, destroy=action.destroy)
        elif (
            isinstance(action, a.Finish)
            and world.destination.state == "failed"
            and not world.destination_copy
        ):
            world.destination_disk = world.destination_disk and world.destination_runs


def fail(world: World) -> None:
    """libvirt gives up: the source runs on, the destination's copy is destroyed; too late once that runs."""
    if world.stage not in ("copying", "stopped"):
        return
    if world.stage == "stopped":
        world.source_events.append(("resumed", None))
    world.source_runs, world.destination_copy, world.stage = True, False, "over"
    world.source_events.append(("done", False))


def clean(world: World, *, destroy: bool) -> None:
    """The destination resets its channels, which makes libvirt fail, and removes what is not running."""
    fail(world)
    if world.destination_runs and not destroy:
        world.destination_events.append(("cleaned", True))
        return
    world.destination_runs = world.destination_copy = world.destination_disk = False
    world.destination_events.append(("cleaned", False))


def libvirt_step(world: World) -> None:
    if world.stage == "copying":
        world.stage, world.source_runs = "stopped", False
        world.source_events.append(("stopped", None))
    elif world.stage == "stopped":
        world.stage, world.destination_runs = "resumed", True
        world.destination_events.append(("resumed", None))
    elif world.stage == "resumed":
        world.stage = "over"
        world.source_events.append(("done", True))


def source_event(world: World) -> None:
    kind, value = world.source_events.pop(0)
    if kind == "stopped":
        world.source.on_stopped(1, world.now)
    elif kind == "resumed":
        world.source.on_resumed_here(world.now)
    else:
        world.source.on_transfer_done(value, "libvirt failed", world.now)


def destination_event(world: World) -> None:
    kind, value = world.destination_events.pop(0)
    if kind == "prepared":
        world.destination.on_prepared(CHANNELS, "", "", world.now)
    elif kind == "resumed":
        world.destination.on_resumed(2, world.now)
        world.destination_events.append(("joined", None))
    elif kind == "joined":
        world.destination.on_joined("RE x", 3, world.now)
    else:
        world.destination.on_cleaned(value, (), world.now)


def cut(world: World) -> None:
    """The control stream breaks: what is on its way is lost, both sides learn of it."""
    world.cuts -= 1
    world.cut = True
    world.out.clear()
    world.back.clear()
    world.source.on_lost("cut", world.now)
    world.destination.on_lost("cut", world.now)


def cancel(world: World) -> None:
    world.cancels -= 1
    world.source.cancel("by the user", world.now)


def fault(world: World) -> None:
    world.faults -= 1
    fail(world)


def deliver_out(world: World) -> None:
    world.destination.on_message(world.out.pop(0), world.now)


def deliver_back(world: World) -> None:
    world.source.on_message(world.back.pop(0), world.now)


def moves(world: World) -> list[Any]:
    found: list[Any] = []
    if world.out:
        found.append(deliver_out)
    if world.back:
        found.append(deliver_back)
    if world.source_events:
        found.append(source_event)
    if world.destination_events:
        found.append(destination_event)
    if world.stage in ("copying", "stopped", "resumed"):
        found.append(libvirt_step)
        if world.faults and world.stage != "resumed":
            found.append(fault)
    if world.cancels and not world.source.finished:
        found.append(cancel)
    if world.cuts and not (world.source.finished and world.destination.finished):
        found.append(cut)
    return found


def check_always(world: World, path: list[str]) -> None:
    assert not (world.source_runs and world.destination_runs), f"two copies run: {path}"
    assert world.source_disk or world.destination_runs, f"the source's disk went too early: {path}"
    assert not world.destination_runs or world.destination_disk, f"the running guest lost its disk: {path}"


def check_end(world: World, path: list[str]) -> None:
    assert world.source.finished, f"the source hangs in {world.source.state}: {path}"
    assert world.destination.finished, f"the destination hangs in {world.destination.state}: {path}"
    assert world.source_runs != world.destination_runs, f"no copy runs: {path}"
    disk = world.source_disk if world.source_runs else world.destination_disk
    assert disk, f"the guest has no disk: {path}"
    if world.source_runs:
        assert not world.destination_disk, f"the destination was left with a disk: {path}"


def start(**limits: int) -> World:
    world = World(SourceMachine(REQUEST), DestinationMachine(), **limits)  # type: ignore[arg-type]
    world.source.on_established(CAPABILITIES, 0.0)
    world.destination.on_established(CAPABILITIES, 0.0)
    perform(world)
    return world


def explore(world: World) -> int:
    """Depth first over all moves; timers fire only when nothing else can happen. Gives the number of
    states."""
    seen: set[str] = set()
    stack: list[tuple[World, list[str]]] = [(world, [])]
    while stack:
        world, path = stack.pop()
        possible = moves(world)
        if not any(move not in (cancel, cut) for move in possible):
            after = copy.deepcopy(world)
            for _ in range(4):
                after.now += FAR
                after.source.tick(after.now)
                after.destination.tick(after.now)
                perform(after)
                while after.out or after.back or after.source_events or after.destination_events:
                    for move in moves(after):
                        if move not in (cancel, cut, fault):
                            move(after)
                            perform(after)
                            check_always(after, [*path, "timers"])
                            break
            check_end(after, path)
        for move in possible:
            after = copy.deepcopy(world)
            after.now += 0.01
            move(after)
            perform(after)
            name = [*path, move.__name__]
            check_always(after, name)
            if (key := after.key()) not in seen:
                seen.add(key)
                stack.append((after, name))
    return len(seen)


@pytest.mark.parametrize(
    "limits",
    [
        {"cancels": 0, "cuts": 0, "faults": 0},
        {"cancels": 1, "cuts": 0, "faults": 1},
        {"cancels": 0, "cuts": 1, "faults": 1},
        {"cancels": 1, "cuts": 1, "faults": 0},
        {"cancels": 1, "cuts": 1, "faults": 1},
    ],
    ids=["quiet", "cancel+fault", "cut+fault", "cancel+cut", "all"],
)
def test_guest_runs_exactly_once_in_every_interleaving(limits: dict[str, int]) -> None:
    assert explore(start(**limits)) > 20
