"""What comes before a migration has a job: facts of the guest, its consent, the call to the destination.

It can take half a minute, to a host that does not answer; a user who cancels meanwhile must not be told that
there is nothing to cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from xiatb.errors import UsageError
from xiatb.migration.control_link import ControlLink
from xiatb.migration.failure import MigrationError
from xiatb.migration.messages import Request

Begun = tuple[Request, ControlLink]


class Beginnings:
    """Those of one daemon, by guest."""

    def __init__(self) -> None:
        self._unwanted: dict[str, asyncio.Event] = {}

    def __contains__(self, guest: str) -> bool:
        return guest in self._unwanted

    def status(self) -> list[dict[str, str]]:
        """As those of jobs in `MigrationService.status`."""
        return [{"guest": guest, "job": "", "state": "beginning"} for guest in self._unwanted]

    def cancel(self, guest: str) -> None:
        """Its migration is to end before it has begun; `guest` must be one of these."""
        self._unwanted[guest].set()

    def refuse(self, guest: str) -> None:
        """Raise UsageError for one of these: it cannot be looked at or changed yet."""
        if guest in self._unwanted:
            raise UsageError(f"the migration of {guest} has hardly begun", hint="ask again in a moment")

    async def run(self, guest: str, work: Coroutine[Any, Any, Begun]) -> Begun:
        """What `work` gives or raises; MigrationError "cancelled" when it was not wanted any more."""
        unwanted = self._unwanted[guest] = asyncio.Event()
        begun, told = asyncio.ensure_future(work), asyncio.ensure_future(unwanted.wait())
        try:
            await asyncio.wait([begun, told], return_when=asyncio.FIRST_COMPLETED)
            if not unwanted.is_set():
                return begun.result()
            begun.cancel()
            await asyncio.wait([begun])
            if not begun.cancelled() and begun.exception() is None:
                begun.result()[1].abort()
            raise MigrationError("cancelled", "cancelled by the user")
        finally:
            begun.cancel()
            told.cancel()
            del self._unwanted[guest]
