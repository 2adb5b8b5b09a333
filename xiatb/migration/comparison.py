"""The source's side of the check that every page arrived as it was sent: its own watch on the memory
channels, the destination's message `pages`, and what follows from both."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from xiatb.errors import XiatbError
from xiatb.migration.messages import Message, Pages
from xiatb.migration.pagewatch import PageWatch, Verdict

COMPARE_S: Final = 1.0
"""How long the hand-over waits for the destination's digests."""
OFF: Final = Verdict(None, "switched off (--no-verify)")


class PagesDifferError(XiatbError):
    """The guest's memory did not arrive as it was sent."""


class Comparison:
    """`watch` is None when the user switched it off."""

    def __init__(self, streams: int, on: bool) -> None:
        self._ready = asyncio.Event()
        self.watch = PageWatch(streams, self._look) if on else None
        self.waited_ns = 0
        """How long the hand-over waited for the comparison."""

    def hear(self, message: Message) -> None:
        """A look at every message of the destination."""
        if isinstance(message, Pages) and self.watch is not None:
            self.watch.theirs = message
            self._look()

    def _look(self) -> None:
        """Both sides have seen all pages, or one of them cannot count."""
        watch = self.watch
        if watch is not None and (watch.trouble or (watch.theirs and (watch.complete or watch.theirs.off))):
            self._ready.set()

    async def demand(self) -> None:
        """Before the guest is handed over. The destination tells its digests while it loads the guest's
        devices, so that they are normally here; one that does not tell them does not hold the guest up.

        Raises PagesDifferError.
        """
        if self.watch is None:
            return
        before = time.monotonic_ns()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), COMPARE_S)
        try:
            self.check()
        finally:
            self.waited_ns = time.monotonic_ns() - before

    def check(self) -> None:
        """Raises PagesDifferError when it is known that pages differ."""
        verdict = self.verdict()
        if verdict.verified is False:
            raise PagesDifferError(
                f"the guest's memory did not arrive as it was sent: {', '.join(verdict.places)}",
                hint="look for a fault of memory or network; --no-verify migrates without this check",
            )

    def verdict(self) -> Verdict:
        """What can be said now."""
        return self.watch.verdict() if self.watch is not None else OFF

    def report(self) -> dict[str, Any]:
        """The result's `pages`."""
        if self.watch is None:
            return self.verdict().as_dict()
        waited = round(self.waited_ns / 1e6, 3)
        return {**self.watch.report(), **self.verdict().as_dict(), "waited_ms": waited}
