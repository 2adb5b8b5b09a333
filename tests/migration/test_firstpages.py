"""Pages that are asked for in the destination's name when a post-copy begins."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import Any

import pytest

from tests.migration.samples import JOB, REQUEST
from xiatb.migration.channels import RelaySet
from xiatb.migration.driver import DriverError
from xiatb.migration.firstpages import FirstPages, PageRange, ReturnGate, ring_pages, rings_of
from xiatb.migration.messages import Resumed
from xiatb.migration.pageledger import PageLedger
from xiatb.migration.returnpath import ReturnPath

RING = {"vring-num": 256, "vring-desc": 0x10000, "vring-avail": 0x11000, "vring-used": 0x12000}
PONG = bytes.fromhex("0002000400000001")


class FakeDriver:
    """A QEMU with one virtio device of two queues."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def ask_qemu(self, name: str, command: str, **arguments: Any) -> Any:
        self.asked.append((command, arguments))
        if command == "qom-get":
            return "/objects/xiatb.ram"
        if command == "x-query-virtio":
            return [{"path": "/machine/net0", "name": "virtio-net"}]
        if command == "x-query-virtio-queue-status" and arguments["queue"] > 1:
            raise DriverError("no such queue")
        return {**RING, "vring-used": 0x20000 * arguments.get("queue", 0)}

    async def set_bandwidth(self, name: str, mib: int) -> None:
        self.asked.append(("set_bandwidth", {"mib": mib}))

    async def start_postcopy(self, name: str) -> None:
        raise DriverError("not now")


def test_rings_become_ranges_of_whole_pages() -> None:
    assert ring_pages("pc.ram", 1 << 20, [RING]) == [PageRange("pc.ram", 0x10000, 0x3000)]
    far = {**RING, "vring-used": 1 << 20}
    assert ring_pages("pc.ram", 1 << 20, [far, RING | {"vring-desc": 0}]) == [
        PageRange("pc.ram", 0x10000, 0x3000)
    ], "what lies outside of memory, and rings that are not set up, are left out"
    assert ring_pages("pc.ram", 0x10800, [RING]) == [], "never a byte that the guest does not have"


def test_a_range_is_a_message_that_the_return_path_knows() -> None:
    path = ReturnPath(PageLedger())
    path.feed(PONG + PageRange("pc.ram", 0x11000, 0x2000).pack())
    assert (path.requests, path.off) == (1, "")
    assert struct.unpack_from(">HH", PageRange("pc.ram", 0, 4096).pack()) == (3, 8 + 4 + 1 + 6)


def test_nothing_is_put_into_a_message_nor_after_a_request() -> None:
    gate = ReturnGate()
    assert gate.open
    gate.incoming(PONG + PONG[:3])
    assert not gate.open
    gate.incoming(PONG[3:])
    assert gate.open
    gate.incoming(PageRange("pc.ram", 0, 4096).pack())
    assert not gate.open
    gate.incoming(PONG)
    assert not gate.open


def test_queues_are_asked_for_until_there_is_none() -> None:
    found = asyncio.run(rings_of(FakeDriver(), "g", 1 << 20))
    assert found == [PageRange("xiatb.ram", 0x10000, 0x2000), PageRange("xiatb.ram", 0x20000, 0x1000)]


@pytest.mark.parametrize(
    ("mode", "ask", "known"), [("postcopy", True, 2), ("postcopy", False, 0), ("precopy", True, 0)]
)
def test_rings_are_looked_up_where_they_will_be_asked_for(mode: str, ask: bool, known: int) -> None:
    first = FirstPages(replace(REQUEST, mode=mode), FakeDriver(), RelaySet(), ask=ask)
    asyncio.run(first.gate())
    assert len(first.pages) == known


@pytest.mark.parametrize(
    ("storage", "cap", "told"), [(True, 7, [7 << 20]), (True, 0, []), (False, 7, [])]
)
def test_memory_beside_disks_gets_its_cap_when_it_begins(storage: bool, cap: int, told: list[int]) -> None:
    driver = FakeDriver()
    first = FirstPages(replace(REQUEST, storage=storage), driver, RelaySet(), lambda: cap)
    asyncio.run(first.on_status("setup"))
    assert driver.asked == [("migrate-set-parameters", {"max-bandwidth": one}) for one in told]


def test_qemu_is_held_back_until_the_guest_runs() -> None:
    async def scenario() -> list[tuple[str, dict[str, Any]]]:
        driver = FakeDriver()
        first = FirstPages(replace(REQUEST, mode="postcopy"), driver, RelaySet(), lambda: 7)
        await first.on_status("setup")
        waiting = asyncio.ensure_future(first.on_status("postcopy-active"))
        await asyncio.sleep(0)
        assert len(driver.asked) == 1
        first.hear(Resumed(job=JOB, t_resume=1))
        await waiting
        await first.switch()
        return driver.asked

    assert asyncio.run(scenario()) == [
        ("migrate-set-parameters", {"max-bandwidth": 1 << 20}),
        ("migrate-set-parameters", {"max-postcopy-bandwidth": 7 << 20}),
        ("set_bandwidth", {"mib": 7}),
    ]
