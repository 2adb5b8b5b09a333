"""Questions that a node's own software asks by datagram, repeated until the answer comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from xiatb.node.control_protocol import ControlError

INTERVALS = (0.2, 0.4, 0.8)
"""Seconds that each transmission of a question is waited for."""
MAX_PENDING = 256
Answer = TypeVar("Answer")


class Requests:
    """Questions under way. Answers are recognised by what they hold, so that they need no order."""

    def __init__(self) -> None:
        self._pending: dict[asyncio.Future[Any], Callable[[bytes], Any]] = {}
        self.stray = 0

    def receive(self, payload: bytes) -> None:
        """A datagram for the node itself came in; counted as stray when no question takes it."""
        for answered, accept in list(self._pending.items()):
            answer = accept(payload)
            if answer is not None and not answered.done():
                answered.set_result(answer)
                return
        self.stray += 1

    async def ask(self, send: Callable[[], None], accept: Callable[[bytes], Answer | None]) -> Answer:
        """The answer to a question: `send` transmits it, again after each of INTERVALS; `accept` gives the
        answer that a payload is, None when it is none (or not genuine).

        Raises ControlError ETIMEDOUT, EAGAIN (too many questions under way).
        """
        if len(self._pending) >= MAX_PENDING:
            raise ControlError("EAGAIN", "too many questions under way")
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[answered] = accept
        try:
            for interval in INTERVALS:
                send()
                done, _ = await asyncio.wait((answered,), timeout=interval)
                if done:
                    return answered.result()
        finally:
            del self._pending[answered]
            answered.cancel()
        raise ControlError("ETIMEDOUT", "no answer")
