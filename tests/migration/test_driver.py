"""The daemon's access to libvirt: what waits must not keep out what cancels it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from xiatb.migration.driver import Driver


def test_many_migrations_leave_room_for_what_cancels_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits in libvirt until it ends; asyncio has six threads on a machine of two processors."""
    over, waiting = threading.Event(), threading.Semaphore(0)

    def migrate(*_: Any) -> None:
        waiting.release()
        over.wait(60)

    monkeypatch.setattr(Driver, "_migrate", lambda self, *_: migrate())
    monkeypatch.setattr(Driver, "_abort", lambda self, name: over.set())

    async def body() -> None:
        driver = Driver("none", lambda event: None)
        moves = [asyncio.ensure_future(driver.migrate(f"g{n}", "", {}, 0)) for n in range(40)]
        while not waiting.acquire(blocking=False):
            await asyncio.sleep(0)
        await driver.abort("g0")
        await asyncio.gather(*moves)

    asyncio.run(asyncio.wait_for(body(), 50))
