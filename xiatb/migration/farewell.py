"""A source's daemon that was started again tells the destination of an interrupted job that the guest stays.

Nothing depends on it: without it the destination waits until the dead daemon's streams have timed out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar

from xiatb.errors import XiatbError
from xiatb.migration.journal import Entry
from xiatb.migration.messages import Capabilities, Inquire, Message, Outcome, Release
from xiatb.migration.peerpath import PeerPath

log = logging.getLogger("xiatb.migration")
FAREWELL_S = 45.0
T = TypeVar("T", bound=Message)


async def farewell(path: PeerPath, entry: Entry, own: Capabilities) -> None:
    """Ask what became of the guest, which lets the destination settle the job; a failure is logged."""
    try:
        async with asyncio.timeout(FAREWELL_S):
            fate = await _inquire(path, entry, own)
    except (XiatbError, OSError, TimeoutError) as error:
        log.warning("job %s: %s was not told that it is over: %s", entry.job, path.peer, error)
    else:
        log.info("job %s: the guest stays, %s says: %s", entry.job, path.peer, fate)


async def _inquire(path: PeerPath, entry: Entry, own: Capabilities) -> str:
    link = await path.control()
    heard: asyncio.Queue[Message | str] = asyncio.Queue()
    link.start(heard.put_nowait, heard.put_nowait)
    try:
        link.send(own)
        await _next(heard, Capabilities)
        link.send(Inquire(job=entry.job, guest=entry.guest, uuid=entry.request.uuid))
        outcome = await _next(heard, Outcome)
        link.send(Release(job=entry.job))
        return outcome.fate
    finally:
        await link.close()


async def _next(heard: asyncio.Queue[Message | str], kind: type[T]) -> T:
    while True:
        message = await heard.get()
        if isinstance(message, kind):
            return message
        if isinstance(message, str):
            raise ConnectionResetError(message)
