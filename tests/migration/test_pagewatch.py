"""Watches at both sides of the memory channels, and the comparison before the hand-over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.migration.samples import JOB
from tests.migration.test_pageledger import INTRODUCTION, full, packet
from tests.migration.test_qemustream import HEAD, RAM, section, stream
from xiatb.migration.comparison import Comparison, PagesDifferError
from xiatb.migration.messages import Pages
from xiatb.migration.pagewatch import PageWatch


class Ticks:
    """A clock that goes on by 1000 ns whenever it is read."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1000
        return self.now


def destination(data: bytes, **more: Any) -> tuple[PageWatch, list[int]]:
    settled: list[int] = []
    watch = PageWatch(on_settled=lambda: settled.append(1), cpu=Ticks(), **more)
    forward, _ = watch.channel()
    for at in range(0, len(data), 5000):
        forward(data[at : at + 5000])
    return watch, settled


def source(data: bytes) -> Comparison:
    pages = Comparison(1, True)
    assert pages.watch is not None
    pages.watch.channel()[0](data)
    return pages


def test_both_sides_agree_and_the_cost_is_told() -> None:
    watch, settled = destination(stream())
    assert settled == [1]
    ours = source(stream())
    ours.hear(watch.pages(JOB))
    asyncio.run(ours.demand())
    report = ours.report()
    assert (report["verified"], report["places"]) == (True, [])
    assert report["cost_us_per_page"]["destination"] > 0


def test_a_page_that_changed_on_its_way_stops_the_hand_over() -> None:
    bad = bytearray(stream())
    bad[bad.index(bytes(4096))] ^= 1
    ours = source(stream())
    ours.hear(destination(bytes(bad))[0].pages(JOB))
    with pytest.raises(PagesDifferError, match=r"pc\.ram at 0x0"):
        asyncio.run(ours.demand())
    assert ours.report()["verified"] is False


def test_a_parser_that_gave_up_cannot_tell_and_holds_nothing_up() -> None:
    watch, settled = destination(b"QEVM\0\0\0\x02" + bytes(100))
    assert settled == [1]
    ours = source(stream())
    ours.hear(watch.pages(JOB))
    asyncio.run(asyncio.wait_for(ours.demand(), 0.5))
    assert ours.report()["verified"] is None
    assert "version 3" in ours.report()["reason"]


def test_off_and_silence() -> None:
    off = Comparison(1, False)
    asyncio.run(off.demand())
    assert off.report() == {"verified": None, "reason": "switched off (--no-verify)", "places": []}
    assert source(stream()).verdict().verified is None


def test_multifd_waits_for_all_channels() -> None:
    settled: list[int] = []
    watch = PageWatch(2, lambda: settled.append(1))
    main, _ = watch.channel()
    first, _ = watch.channel()
    main(HEAD + section(1, b"") + section(3, full(0, 1, RAM)) + b"\x04")
    assert (watch.complete, settled) == (False, [])
    first(INTRODUCTION + packet([0x2000], 1, flags=1))
    assert not settled
    first(packet([0x1000], 1, flags=1))
    assert (watch.complete, settled) == (True, [1])
    assert watch.ledger.totals.normal == 3


def test_a_multifd_channel_may_be_ahead_of_the_block_list() -> None:
    watch = PageWatch(2)
    main, _ = watch.channel()
    ahead, _ = watch.channel()
    ahead(INTRODUCTION + packet([0x2000], 1, flags=1))
    assert watch.ledger.totals.normal == 0
    main(HEAD + section(1, full(0, 1, RAM)) + b"\x04")
    assert (watch.complete, watch.trouble, watch.ledger.totals.normal) == (True, "", 2)


def test_a_recovered_post_copy_is_compared_by_the_last_versions() -> None:
    watch = PageWatch()
    watch.channel()[0](HEAD + section(1, full(0, 1, RAM) + full(0x1000, 2)))
    watch.channel()
    assert watch.recovered
    assert watch.pages(JOB).final
    other = PageWatch()
    other.channel()[0](HEAD + section(1, full(0, 1, RAM) + full(0x1000, 2) + full(0x1000, 2)))
    assert other.ledger.summary() != watch.ledger.summary()
    assert other.ledger.summary(final=True) == watch.ledger.summary(final=True)


def test_digests_of_a_large_guest_fit_into_a_message() -> None:
    watch = PageWatch()
    watch.ledger.declare("pc.ram", 5 << 30)
    assert watch.ledger.region == 1024
    digests = watch.ledger.summary()
    assert len(digests["pc.ram"]) == 16 * 1280
    Pages(job=JOB, digests=digests)
