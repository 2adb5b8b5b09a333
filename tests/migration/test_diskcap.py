"""Disks' channels are held back to the cap, whatever it is at the moment."""

from __future__ import annotations

import asyncio

from xiatb.migration.diskcap import BURST_S, DiskCap

CHUNK = bytes(64 << 10)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def send(gate: DiskCap, chunks: int) -> None:
    async def body() -> None:
        for _ in range(chunks):
            await gate.outgoing(CHUNK)

    asyncio.run(body())


def test_what_goes_out_takes_as_long_as_the_cap_says() -> None:
    time = Time()
    send(DiskCap(lambda: 2 << 20, lambda: time.now, time.sleep), 96)
    assert 3.0 - BURST_S - 0.01 <= time.now - 1000.0 <= 3.0


def test_a_channel_that_was_idle_catches_up_on_a_moment_only() -> None:
    time = Time()
    gate = DiskCap(lambda: 1 << 20, lambda: time.now, time.sleep)
    send(gate, 16)
    time.now += 60.0
    before = time.now
    send(gate, 32)
    assert 2.0 - BURST_S - 0.01 <= time.now - before <= 2.0


def test_a_changed_cap_counts_from_the_next_chunk() -> None:
    time, caps = Time(), [1 << 20]
    gate = DiskCap(lambda: caps[0], lambda: time.now, time.sleep)
    send(gate, 16)
    before = time.now
    caps[0] = 0
    send(gate, 1000)
    assert time.now == before
    caps[0] = 4 << 20
    send(gate, 64)
    assert 1.0 - BURST_S - 0.01 <= time.now - before <= 1.0


def test_two_channels_share_one_cap() -> None:
    time = Time()
    gate = DiskCap(lambda: 1 << 20, lambda: time.now, time.sleep)
    send(gate, 8)
    send(gate, 8)
    assert time.now - 1000.0 >= 1.0 - BURST_S - 0.01
