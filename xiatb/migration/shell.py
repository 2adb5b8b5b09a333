"""What both sides' job shells share: one machine, its control link, a timer; events in, actions performed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

from xiatb.migration import actions as a
from xiatb.migration.control_link import ControlLink
from xiatb.migration.machine import Machine
from xiatb.migration.messages import Capabilities, Message

log = logging.getLogger("xiatb.migration")
MUST_S = 30.0


class JobShell:
    """Feeds a machine and performs its actions in the asyncio thread; long ones run as tasks.

    The control link may be lost and replaced by another: news of an older link is not passed on.
    """

    def __init__(self, machine: Machine, link: ControlLink | None, name: str) -> None:
        self.machine = machine
        self.name = name
        self.outcome: a.Finish | None = None
        self.phases: list[dict[str, Any]] = []
        self.link = link
        self._over = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._must: set[asyncio.Task[Any]] = set()

    async def run(self, own: Capabilities | None = None) -> a.Finish:
        """To the end of the job, from an established control session (then `own` is what this host is) or
        from a restored machine; never raises for the peer's faults."""
        if self.link is not None and own is not None:
            self.attach(self.link)
            self.machine.on_established(own, time.monotonic())  # type: ignore[attr-defined]
        self.step()
        await self._over.wait()
        if self._must:
            await asyncio.wait(set(self._must), timeout=MUST_S)
        await self.wind_up()
        if self.link is not None:
            await self.link.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        return self.outcome or a.Finish(False, "failed", "the job ended without an outcome")

    def attach(self, link: ControlLink) -> None:
        """Hear and speak on this link from now on."""
        self.link = link
        link.start(partial(self._on_message, link), partial(self._on_lost, link))

    def hang_up(self) -> None:
        """End the control link at once; its loss is not reported."""
        if self.link is not None:
            self.link.abort()
            self.link = None

    async def wind_up(self) -> None:
        """What is left to do once the machine has finished and before the control stream closes."""

    def perform(self, action: a.Action) -> None:
        """Do what the machine asks for."""
        raise NotImplementedError

    def on_peer_message(self, message: Message) -> None:
        """A look at every message of the peer, before the machine takes it."""

    def step(self) -> None:
        """Perform all actions that wait, then set the timer anew."""
        while actions := self.machine.take_actions():
            for action in actions:
                self._perform(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.machine.deadline is not None:
            wait = max(0.0, self.machine.deadline - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._tick)

    def spawn(self, work: Coroutine[Any, Any, Any], *, must: bool = False) -> None:
        """Run a coroutine beside the job; when the job is over it is cancelled, or awaited if it `must` be
        done."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        if must:
            self._must.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._must.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %s", self.name, error, exc_info=error)

    def _perform(self, action: a.Action) -> None:
        if isinstance(action, a.Send):
            log.info("%s: -> %s", self.name, action.message.TYPE)
            if self.link is not None:
                self.link.send(action.message)
        elif isinstance(action, a.Phase):
            log.info("%s: phase %s", self.name, action.name)
            self.phases.append({"name": action.name, "start_ns": time.monotonic_ns()})
            self.on_phase(action.name)
        elif isinstance(action, a.Finish):
            log.info("%s: finished %s %s %s", self.name, action.ok, action.code, action.reason)
            self.outcome = action
            self._over.set()
        else:
            log.info("%s: %s", self.name, type(action).__name__)
            self.perform(action)

    def on_phase(self, name: str) -> None:
        """A new phase has begun."""

    def _on_message(self, link: ControlLink, message: Message) -> None:
        if link is not self.link:
            return
        log.debug("%s: <- %s", self.name, message.TYPE)
        self.on_peer_message(message)
        self.machine.on_message(message, time.monotonic())  # type: ignore[attr-defined]
        self.step()

    def _on_lost(self, link: ControlLink, reason: str) -> None:
        if link is not self.link:
            return
        self.machine.on_lost(reason, time.monotonic())  # type: ignore[attr-defined]
        self.step()

    def _tick(self) -> None:
        self._timer = None
        self.machine.tick(time.monotonic())
        self.step()
