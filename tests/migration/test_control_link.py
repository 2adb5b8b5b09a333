"""The control stream against peers that do not read."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.migration.samples import JOB, KEYS
from xiatb.migration import messages as m
from xiatb.migration.control_link import MAX_UNREAD, ControlLink
from xiatb.migration.handshake import Session
from xiatb.wire.xid import XidType


class StuckWire:
    """Takes the first write after the handshake and never drains; `abort` breaks it."""

    def __init__(self) -> None:
        self.broken = asyncio.Event()

    async def write(self, data: bytes) -> None:
        await self.broken.wait()
        raise ConnectionResetError("aborted")

    async def read(self, limit: int) -> bytes:
        await self.broken.wait()
        raise ConnectionResetError("aborted")

    def abort(self) -> None:
        self.broken.set()

    async def close(self) -> None:
        self.abort()


def established() -> Session:
    sids = [key.xid(XidType.SID) for key in KEYS[:2]]
    one = Session(KEYS[0], [sids[1]], initiator=True)
    two = Session(KEYS[1], [sids[0]], initiator=False)
    one.start()
    while not (one.established and two.established):
        two.feed(one.take_output())
        one.feed(two.take_output())
    return one


def test_a_peer_that_does_not_read_loses_the_stream() -> None:
    async def body() -> None:
        wire: Any = StuckWire()
        link, lost = ControlLink(wire, established()), asyncio.Event()
        link.start(lambda message: None, lambda reason: lost.set())
        message = m.Outcome(job=JOB, fate="postcopy", locator="x" * 1500)
        sent = 0
        while not wire.broken.is_set() and sent < 2 * MAX_UNREAD:
            link.send(message)
            sent += 1500
        await asyncio.wait_for(lost.wait(), 5)
        assert sent < MAX_UNREAD + 4096
        await link.close()

    asyncio.run(body())
