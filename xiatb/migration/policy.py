"""When to stop the guest: a downtime limit that starts low and is raised while pre-copy does not converge.

QEMU stops the guest once what remains would take less than the limit at the rate it measured. A low limit
gives a short downtime when the guest is calm; raising it step by step makes sure that a busy guest arrives
at all.
"""

from __future__ import annotations

from typing import Final

START_MS: Final = 60
MOST_MS: Final = 500
FACTOR: Final = 1.5
FREE_PASSES: Final = 4
"""Passes that the first limit gets before it is raised."""
STEP_S: Final = 0.4
"""Shortest time between two raises, as passes over a small hot set can follow each other quickly."""


class DowntimeLimit:
    """Gives the limit to set, in milliseconds, whenever it should change. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self.limit = 0
        self._changed = 0.0

    def next(self, passes: int, now: float) -> int | None:
        """The new limit, or None to leave it; `passes` counts the passes over memory so far."""
        if self.limit == 0:
            self.limit = START_MS
        elif passes > FREE_PASSES and self.limit < MOST_MS and now - self._changed >= STEP_S:
            self.limit = min(MOST_MS, int(self.limit * FACTOR))
        else:
            return None
        self._changed = now
        return self.limit
