"""What only libvirtd here can say or do, asked of it until it answers; above all what became of an incoming
guest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from xiatb.migration.driver import Driver, DriverError

log = logging.getLogger("xiatb.migration")
CLEAN_S = 10.0
_STEP_S = 0.05
AGAIN_S = 0.5
T = TypeVar("T")


async def insist(call: Callable[[], Awaitable[T]], who: str) -> T:
    """What libvirtd answers to `call`, made again for as long as it does not: it may have died, and the lab
    starts another. `who` asks, for the log."""
    silent = False
    while True:
        try:
            return await call()
        except DriverError as error:
            if not silent:
                log.warning("%s: libvirtd does not answer: %s", who, error)
            silent = True
        await asyncio.sleep(AGAIN_S)


async def known_fate(driver: Driver, guest: str) -> str:
    """As `settled_fate`, however long libvirtd does not answer: a guess could start a second copy."""
    return await insist(partial(settled_fate, driver, guest), f"guest {guest}")


async def settled_fate(driver: Driver, guest: str) -> str:
    """What becomes of an incoming guest whose channels are closed: "here", "none" or "postcopy".

    libvirtd itself ends it when the connection of its migration closes, unless it runs by then or has
    switched to post-copy; a copy that is still paused after CLEAN_S is ended here. Raises DriverError.
    """
    deadline = time.monotonic() + CLEAN_S
    while True:
        if await driver.in_postcopy(guest):
            return "postcopy"
        state = await driver.state(guest)
        if state == "running":
            return "here"
        if state != "paused" or time.monotonic() > deadline:
            break
        await asyncio.sleep(_STEP_S)
    if state != "absent":
        await driver.destroy(guest)
    return "none"
