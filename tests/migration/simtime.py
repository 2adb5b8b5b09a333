"""An asyncio loop whose clock jumps: whenever nothing can be done at once, it is the time of the next timer.

Sockets inside the process are ready at once or never, and work for threads is done on the spot, so a scenario
of minutes takes milliseconds and always goes the same way.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

START = 1000.0


class StuckError(AssertionError):
    """Nothing will ever happen any more."""


class _Selector(selectors.DefaultSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise StuckError("the scenario waits for something that cannot come")
        if not ready and timeout:
            self.loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`now` is the loop's time in seconds."""

    def __init__(self) -> None:
        self.now = START
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - as a thread would pass it on
            done.set_exception(error)
        return done


def run(scenario: Callable[[], Coroutine[Any, Any, Any]], monkeypatch: Any, factory: Any = None) -> Any:
    """Run a scenario on a loop of its own, with `time.monotonic` and its nanoseconds following its clock."""
    loop = VirtualLoop()
    if factory is not None:
        loop.set_task_factory(factory)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: loop.now)
        patch.setattr(time, "monotonic_ns", lambda: int(loop.now * 1e9))
        try:
            return loop.run_until_complete(scenario())
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(1))
            loop.close()
