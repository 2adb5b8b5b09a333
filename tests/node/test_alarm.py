"""The timer that follows a core's deadline, on a loop whose clock the test turns."""

from __future__ import annotations

import asyncio

import pytest

from xiatb.node.alarm import Alarm


class Loop:
    """As much of an event loop as an alarm uses."""

    def __init__(self) -> None:
        self.made: list[tuple[float, asyncio.TimerHandle]] = []
        self._real = asyncio.new_event_loop()

    def call_at(self, when: float, callback: object) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, (), self._real)  # type: ignore[arg-type]
        self.made.append((when, handle))
        return handle

    def close(self) -> None:
        self._real.close()

    def due(self) -> list[float]:
        return [when for when, handle in self.made if not handle.cancelled()]


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.close()


def test_an_earlier_deadline_replaces_and_a_later_one_does_not(loop: Loop) -> None:
    alarm = Alarm(loop, lambda: None)  # type: ignore[arg-type]
    alarm.set(5.0)
    alarm.set(7.0)
    assert loop.due() == [5.0]
    alarm.set(3.0)
    assert loop.due() == [3.0]


def test_none_and_cancel_silence_it(loop: Loop) -> None:
    alarm = Alarm(loop, lambda: None)  # type: ignore[arg-type]
    alarm.set(5.0)
    alarm.set(None)
    assert loop.due() == []
    alarm.set(6.0)
    alarm.cancel()
    alarm.cancel()
    assert loop.due() == []


def test_after_ringing_it_can_be_set_later() -> None:
    async def scenario() -> int:
        rung = 0
        loop = asyncio.get_running_loop()
        again = asyncio.Event()

        def ring() -> None:
            nonlocal rung
            rung += 1
            if rung == 1:
                alarm.set(loop.time() + 0.001)
            else:
                again.set()

        alarm = Alarm(loop, ring)
        alarm.set(loop.time())
        async with asyncio.timeout(5):
            await again.wait()
        return rung

    assert asyncio.run(scenario()) == 2
