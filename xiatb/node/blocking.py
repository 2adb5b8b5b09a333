"""Runs the asyncio sockets for programs that block: one event loop in one background thread a process."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
LINGER = 10.0
"""Seconds that a program's end waits for closed streams to be delivered."""


class LoopThread:
    """An event loop that runs in a daemon thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="xia-sockets", daemon=True)
        self._thread.start()
        self._lingering: set[asyncio.Future[None]] = set()
        atexit.register(self.finish)

    def run(self, work: Coroutine[Any, Any, Result], timeout: float | None = None) -> Result:
        """Runs `work` on the loop and returns its result or raises its exception.

        timeout: None waits for ever; 0 tries once, BlockingIOError when that is not enough; else
        TimeoutError after so many seconds.
        """
        future = asyncio.run_coroutine_threadsafe(_limited(work, timeout), self._loop)
        try:
            return future.result()
        except BaseException:
            # KeyboardInterrupt in the waiting thread: what it waited for must not go on without it.
            future.cancel()
            raise

    def linger(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` in the background (call on the loop's thread); the process waits for it at its end."""
        task = asyncio.ensure_future(work)
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    def finish(self) -> None:
        """Waits, for LINGER seconds at most, until the peers have what was written."""
        if self.pid == os.getpid() and self._lingering:
            work = asyncio.wait(set(self._lingering), timeout=LINGER)
            asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call(self, function: Callable[[], Result]) -> Result:
        """Calls a plain function on the loop's thread and returns its result."""
        return self.run(_called(function))


async def _called(function: Callable[[], Result]) -> Result:
    return function()


async def _limited(work: Coroutine[Any, Any, Result], timeout: float | None) -> Result:
    if timeout is None:
        return await work
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            return await work
    except TimeoutError as error:
        if not deadline.expired():
            raise
        if timeout == 0:
            raise BlockingIOError(11, "the operation would block") from error
        raise TimeoutError("timed out") from error


_lock = threading.Lock()
_shared: LoopThread | None = None


def shared() -> LoopThread:
    """This process's thread; a forked child gets one of its own."""
    global _shared
    with _lock:
        if _shared is None or _shared.pid != os.getpid():
            _shared = LoopThread()
        return _shared
