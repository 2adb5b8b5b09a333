"""Base of elements that pull from a queue on their own accord."""

from __future__ import annotations

from typing import Any

from xiatb.click.context import Context
from xiatb.click.element import Element


class Drain(Element):
    """Calls `run` as a task whenever the queue upstream stops being empty; `run` pulls what it may."""

    __slots__ = ("scheduled",)
    PORTS = "1/1"
    PROCESSING = "l/h"

    def configure(self, args: dict[str, Any]) -> None:
        """Take the arguments."""
        super().configure(args)
        self.scheduled = False

    def initialize(self, ctx: Context) -> None:
        """Listen to the queue."""
        self.listen(self.wake)

    def wake(self) -> None:
        """Run soon, once."""
        if not self.scheduled:
            self.scheduled = True
            self.sched.wake(self._task)

    def _task(self) -> None:
        self.scheduled = False
        self.run()

    def run(self) -> None:
        """Pull what may be pulled now."""
        raise NotImplementedError
