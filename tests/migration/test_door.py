"""Strangers at the daemon's door: how many of their silent streams there may be, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.migration.samples import JOB
from xiatb.errors import WireError
from xiatb.migration import door, frames
from xiatb.migration.door import Admitted, Door
from xiatb.migration.tlswire import TlsIdentity
from xiatb.migration.wirestream import AsyncioWire, Wire
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID

CONTROL = frames.pack(frames.CLEAR, b"{}")
CHANNEL = frames.pack(frames.CHANNEL, b'{"job":"%s"}' % JOB.encode())
TLS = TlsIdentity()


class Takers:
    """Admits a channel at once, a control stream when its peer goes on; keeps both until `over`."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.over = asyncio.Event()

    async def on_control(self, wire: Wire, first: bytes, admitted: Admitted) -> None:
        assert first == CONTROL
        await wire.read(1)
        admitted()
        self.taken.append("control")
        await self.over.wait()

    async def on_channel(self, wire: Wire, body: bytes, pin: str, admitted: Admitted) -> None:
        if JOB.encode() not in body:
            raise WireError("no such job")
        admitted()
        self.taken.append("channel")
        await self.over.wait()


class Stranger(AsyncioWire):
    """The door's end of a stream, and what its peer says."""

    def __init__(self, origin: str, data: bytes) -> None:
        self.says = asyncio.StreamReader()
        self.says.feed_data(data)
        self._reader = self.says
        self._origin = origin
        self.aborted = False

    def origin(self) -> str:
        return self._origin

    def abort(self) -> None:
        self.aborted = True


class House:
    """A door with streams that come to it."""

    def __init__(self) -> None:
        self.takers = Takers()
        self.door = Door(TLS, self.takers)
        self.tasks: list[asyncio.Task[None]] = []

    async def comes(self, origin: str = "", data: bytes = b"") -> Stranger:
        """A stream from `origin` that says `data`, once all is quiet."""
        wire = Stranger(origin, data)
        self.tasks.append(asyncio.ensure_future(self.door.on_wire(wire)))
        await quiet()
        return wire


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


async def end(house: House) -> None:
    house.takers.over.set()
    for task in house.tasks:
        if not task.done():
            task.cancel()
    await asyncio.gather(*house.tasks, return_exceptions=True)
    assert not house.door._half_open and house.door._known == 0


def test_the_oldest_silent_stream_makes_room_and_known_ones_stay() -> None:
    async def body() -> None:
        house = House()
        known = [await house.comes("peer", CHANNEL) for _ in range(20)]
        strangers = [await house.comes(f"s{n}") for n in range(door.MAX_HALF_OPEN)]
        assert not any(wire.aborted for wire in [*known, *strangers])
        late = await house.comes("peer", CONTROL)
        assert [wire.aborted for wire in strangers] == [True] + [False] * (door.MAX_HALF_OPEN - 1)
        late.says.feed_data(b"x")
        await quiet()
        assert house.takers.taken == ["channel"] * 20 + ["control"]
        for n in range(3 * door.MAX_HALF_OPEN):
            strangers.append(await house.comes(f"t{n}"))
        assert sum(not wire.aborted for wire in strangers) == door.MAX_HALF_OPEN
        assert not any(wire.aborted for wire in [*known, late])
        await end(house)

    run(body())


def test_one_host_has_a_share_of_the_places() -> None:
    async def body() -> None:
        house = House()
        loud = [await house.comes("loud") for _ in range(door.MAX_OF_ONE + 5)]
        assert [wire.aborted for wire in loud] == [True] * 5 + [False] * door.MAX_OF_ONE
        assert not (await house.comes("other")).aborted
        assert not (await house.comes()).aborted, "of unknown origin"
        await end(house)

    run(body())


def test_who_names_a_peer_s_host_does_not_keep_that_peer_out() -> None:
    """A stream's address is not proved: this one leads to the stranger's host, and ends behind it at the
    peer's, which routers never reach."""
    stranger, peer = XID.parse("HID:" + "5" * 40), XID.parse("HID:" + "1" * 40)
    claimed = DAG.chain(XID.parse("AD:" + "2" * 40), stranger, peer, XID.parse("SID:" + "3" * 40))
    assert claimed.intent_hid == peer

    async def body() -> None:
        house = House()
        silent = [await house.comes(str(peer)) for _ in range(door.MAX_OF_ONE)]
        real = await house.comes(str(peer), CONTROL)
        assert not real.aborted and silent[0].aborted
        real.says.feed_data(b"x")
        await quiet()
        assert house.takers.taken == ["control"]
        await end(house)

    run(body())


@pytest.mark.parametrize("said", [b"", b"\x16", b"\0\0\0", CONTROL])
def test_who_does_not_go_on_is_dropped_in_time(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for all that comes before a stream is known; for one that is, there is no limit."""
    monkeypatch.setattr(door, "HALF_OPEN_S", 0.05)

    async def body() -> None:
        house = House()
        known, silent = await house.comes("peer", CHANNEL), await house.comes("s", said)
        await asyncio.wait([house.tasks[1]])
        assert silent.aborted and house.takers.taken == ["channel"]
        assert not known.aborted and not house.tasks[0].done()
        await end(house)

    run(body())


def test_known_streams_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_STREAMS", 3)

    async def body() -> None:
        house = House()
        streams = [await house.comes("peer", CHANNEL) for _ in range(4)]
        assert [wire.aborted for wire in streams] == [False, False, False, True]
        stranger = await house.comes("s", frames.pack(frames.CHANNEL, b"{}"))
        assert stranger.aborted, "what a taker refuses"
        await end(house)

    run(body())
