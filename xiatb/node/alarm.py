"""One timer of an event loop that follows a sans-IO core's next deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls `ring` at the deadline that was set last, or earlier.

    A timer that rings early costs one look; replacing it whenever the deadline recedes, which it does with
    every packet of a stream, costs more.
    """

    __slots__ = ("_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, deadline: float | None) -> None:
        """Ring at `deadline` (the loop's clock, seconds; time.monotonic() is that clock) or, None, never."""
        timer = self._timer
        if deadline is None:
            self.cancel()
            return
        if timer is not None:
            if timer.when() <= deadline:
                return
            timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def cancel(self) -> None:
        """Ring no more until a deadline is set again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        self._ring()
