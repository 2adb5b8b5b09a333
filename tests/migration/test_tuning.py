"""Time limits and changed limits of a running migration; disks that are not copied; growing pauses."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.migration.samples import CAPABILITIES, DISK, JOB, REQUEST
from xiatb.errors import UsageError
from xiatb.lab.client import SocketGoneError
from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration import storage
from xiatb.migration.config import DaemonConfig
from xiatb.migration.controller import Bounds, Controller
from xiatb.migration.hosting import RefusedError, create_disk
from xiatb.migration.manager import MigrationManager
from xiatb.migration.options import MAX_DOWNTIME_MS, Options
from xiatb.migration.source import SourceMachine
from xiatb.migration.sourcecore import MOST_RETRY_S
from xiatb.migration.tuning import Tuning
from xiatb.node.control_protocol import ControlError


class FakeDriver:
    """Remembers what was set."""

    def __init__(self) -> None:
        self.set: list[tuple[str, int]] = []

    async def set_downtime_limit(self, name: str, milliseconds: int) -> None:
        self.set.append(("downtime", milliseconds))

    async def set_bandwidth(self, name: str, mib: int) -> None:
        self.set.append(("bandwidth", mib))


def tuning(options: Options) -> tuple[Tuning, FakeDriver, list[Any]]:
    driver, done = FakeDriver(), []
    made = Tuning(options, driver, "vm1", Controller(Bounds()), lambda why: done.append(("cancel", why)),
                  lambda: done.append("switch"), done.append)  # fmt: skip
    return made, driver, done


def watch(made: Tuning, *moments: tuple[float, bool]) -> None:
    for now, copying in moments:
        asyncio.run(made.watch(copying, now))


def test_time_limit_aborts_in_any_phase_and_once() -> None:
    made, driver, done = tuning(Options(timeout=5.0))
    watch(made, (10.0, False), (14.9, False))
    assert done == []
    watch(made, (15.1, False), (16.0, False))
    assert done == [("cancel", "not done after 5 s, as --timeout-action abort says")]
    assert driver.set == []


@pytest.mark.parametrize("action", ["postcopy", "force"])
def test_other_actions_wait_until_memory_is_copied(action: str) -> None:
    made, driver, done = tuning(Options(timeout=5.0, timeout_action=action))
    watch(made, (10.0, False), (20.0, False))
    assert (done, driver.set) == ([], [])
    watch(made, (21.0, True), (22.0, True))
    if action == "postcopy":
        assert [one if isinstance(one, str) else one["kind"] for one in done] == ["postcopy", "switch"]
    else:
        assert driver.set == [("downtime", MAX_DOWNTIME_MS)]
        assert made.forced
        assert "not done after 5 s" in done[0]["reason"]


def test_no_time_limit_never_acts() -> None:
    made, driver, done = tuning(Options())
    watch(made, (1.0, True), (1e9, True))
    assert (done, driver.set) == ([], [])


def test_changes_bind_the_controller_too() -> None:
    driver, done, controller = FakeDriver(), [], Controller(Bounds(bandwidth=1 << 20, bandwidth_most=2 << 20))
    made = Tuning(Options(), driver, "vm1", controller, done.append, lambda: None, done.append)
    asyncio.run(made.change({"downtime": 80}))
    assert (driver.set, controller.limit_ms) == ([], 0), "the disk comes first: it begins lower"
    controller.limit_ms = 60
    asyncio.run(made.change({"downtime": 90, "bandwidth": 5}))
    assert driver.set == [("downtime", 90), ("bandwidth", 5)]
    assert controller.limit_ms == 90
    assert controller.bounds == Bounds(downtime_ms=90, bandwidth=5 << 20, bandwidth_most=5 << 20)
    assert [one["kind"] for one in done] == ["downtime", "downtime", "bandwidth"]
    assert {one["by"] for one in done} == {"user"}


def asking(record: str = "postcopy") -> SourceMachine:
    machine = SourceMachine.restore(REQUEST, record, 0.0)
    machine.on_dial_failed("no way", 0.0)
    return machine


def test_pauses_between_attempts_grow_to_a_bound_and_a_user_can_hurry() -> None:
    machine, waits = asking(), []
    now = 0.0
    for _ in range(8):
        assert machine.deadline is not None
        waits.append(machine.deadline - now)
        now = machine.deadline
        machine.tick(now)
        machine.on_dial_failed("no way", now)
    assert waits == [1.0, 2.0, 4.0, 8.0, *[MOST_RETRY_S] * 4]
    machine.take_actions()
    assert machine.hurry(now)
    assert [type(one) for one in machine.take_actions()] == [a.Redial]
    assert not machine.hurry(now), "one attempt at a time"


def test_source_whose_copy_has_died_does_not_recover_but_tells() -> None:
    machine = asking()
    machine.tick(1e3)
    machine.on_established(CAPABILITIES, 1e3)
    machine.on_message(CAPABILITIES, 1e3)
    machine.take_actions()
    machine.on_copy_gone(1e3)
    machine.on_message(m.Outcome(job=JOB, fate="postcopy"), 1e3)
    (sent,) = [one.message for one in machine.take_actions() if isinstance(one, a.Send)]
    assert isinstance(sent, m.Abort)
    assert sent.code == "lost"
    machine.on_message(m.Outcome(job=JOB, fate="lost"), 1e3)
    (end,) = [one for one in machine.take_actions() if isinstance(one, a.Finish)]
    assert (end.ok, end.code) == (False, "guest-lost")


def config(base: Path) -> DaemonConfig:
    places = {"images": base / "images", "disks": base / "disks"}
    return DaemonConfig("t", "hv2", base / "k", base, base / "s", **places)


@pytest.fixture
def backed(tmp_path: Path) -> tuple[DaemonConfig, m.Disk]:
    """A host's directories with an image, and a disk on top of that."""
    made = config(tmp_path)
    for place in (made.images, made.disks):
        place.mkdir()
    image = made.images / "root.raw"
    image.write_bytes(b"x" * 65536)
    digest = hashlib.sha256(b"x" * 65536).hexdigest()
    return made, replace(DISK, path=str(made.disks / "vm1.qcow2"), size=1 << 20, backing=str(image),
                         backing_format="raw", content=digest)  # fmt: skip


def admit(made: DaemonConfig, disk: m.Disk, *, copied: bool = True) -> str:
    try:
        asyncio.run(storage.admit_storage(replace(REQUEST, disks=(disk,), storage=copied), made))
    except RefusedError as error:
        return error.code
    return ""


def test_backing_files_are_compared_by_content(backed: tuple[DaemonConfig, m.Disk]) -> None:
    made, disk = backed
    assert admit(made, disk) == ""
    Path(disk.backing).write_bytes(b"y" * 65536)
    assert admit(made, disk) == "wrong-image"
    Path(disk.backing).unlink()
    assert admit(made, disk) == "image-missing"


def test_a_peer_cannot_make_a_disk_of_any_file_of_the_host(backed: tuple[DaemonConfig, m.Disk]) -> None:
    made, disk = backed
    secret = made.state_dir / "secret"
    secret.write_bytes(b"x" * 65536)
    assert admit(made, replace(disk, backing=str(secret))) == "unsupported"
    link = made.images / "link"
    link.symlink_to(secret)
    assert admit(made, replace(disk, backing=str(link))) == "unsupported"
    assert admit(made, replace(disk, backing=f"{made.images}/../secret")) == "unsupported"


def test_a_disk_that_stays_must_be_the_same_file(backed: tuple[DaemonConfig, m.Disk]) -> None:
    made, disk = backed
    path = Path(disk.path)
    disk = replace(disk, backing="", backing_format="", content="")
    asyncio.run(create_disk(disk))
    here = asyncio.run(storage.described((disk,), copied=False, backing=False))[0]
    assert admit(made, here, copied=False) == ""
    path.rename(path.with_suffix(".old"))
    path.write_bytes(b"1")
    assert admit(made, here, copied=False) == "wrong-image"


def test_the_source_describes_what_lies_above_the_backing_file(backed: tuple[DaemonConfig, m.Disk]) -> None:
    _, disk = backed
    asyncio.run(create_disk(disk))
    plain = replace(disk, backing="", backing_format="", content="")
    (seen,) = asyncio.run(storage.described((plain,), copied=True, backing=True))
    assert seen == disk
    alone = replace(plain, path=str(Path(disk.path).with_name("alone.qcow2")))
    asyncio.run(create_disk(alone))
    with pytest.raises(UsageError, match="no backing file"):
        asyncio.run(storage.described((alone,), copied=True, backing=True))


class Busy(MigrationManager):
    """One whose daemons answer from a dict: which guest each is sending."""

    def __init__(self, sending: dict[str, str]) -> None:
        super().__init__()
        self.sending = sending
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def _ask(self, context: Any, node: str, op: str, **fields: Any) -> dict[str, Any]:
        if node not in self.sending:
            raise SocketGoneError(f"{node}: gone")
        if op == "status":
            return {"outgoing": [{"guest": self.sending[node]}]}
        self.asked.append((node, op, fields))
        return {"accepted": True}


def test_whoever_sends_the_guest_is_told() -> None:
    nodes = [SimpleNamespace(name=name) for name in ("hv1", "hv2", "hv3")]
    guests = [SimpleNamespace(name=name) for name in ("vm1", "vm2", "vm3")]
    context: Any = SimpleNamespace(plan=SimpleNamespace(kind=lambda kind: nodes, guests=guests))
    manager = Busy({"hv2": "vm2", "hv3": "vm1"})
    assert manager.control(context, "vm1", "set", {"bandwidth": 4}) == {"accepted": True}
    assert manager.asked == [("hv3", "set", {"guest": "vm1", "bandwidth": 4})]
    assert manager.control(context, "vm1", "show", {}) == {"from": "hv3", "accepted": True}
    assert manager.cancel(context, "vm2") == {"accepted": True}
    assert manager.asked[-1] == ("hv2", "cancel", {"guest": "vm2"})
    for guest, action in (("vm9", "switch"), ("vm3", "show"), ("vm1", "explode")):
        with pytest.raises(ControlError) as caught:
            manager.control(context, guest, action, {})
        assert caught.value.code == "EUSAGE"
