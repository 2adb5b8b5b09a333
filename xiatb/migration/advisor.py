"""Predictions of one daemon: plans that its users ask for, a prediction beside every migration, and what is
learnt from how it went."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.migration.calibration import PairBook
from xiatb.migration.control_link import ControlLink
from xiatb.migration.fence import Fence
from xiatb.migration.messages import Capabilities, Request
from xiatb.migration.options import Options
from xiatb.migration.planning import Examination, Plan, foresee, sample
from xiatb.migration.wirestream import Wire

log = logging.getLogger("xiatb.migration")
FILE = "pairs.json"
Dial = Callable[[str, str], Awaitable[Wire]]


class Advisor:
    """`directory` is the daemon's state directory, `pids` that of libvirt's pid files of guests."""

    def __init__(self, directory: Path, pids: Path) -> None:
        self.book = PairBook(directory / FILE)
        self._pids = pids
        self._plans: dict[str, Plan] = {}

    async def plan(
        self, request: Request, peer: str, options: Options, link: ControlLink, dial: Dial, own: Capabilities
    ) -> dict[str, Any]:
        """Ask the destination and predict, at the same time sampling the guest's memory.

        {"admitted", "code", "reason"} and, unless the guest was refused, the fields of Plan.as_dict. Raises
        XiatbError when destination or guest cannot be looked at.
        """
        pid = Fence.of(request.guest, self._pids).process[0]
        sampling = asyncio.ensure_future(asyncio.to_thread(sample, pid, request.memory))
        try:
            theirs, answer, goodput = await Examination(link, request, dial).run(own)
            told: dict[str, Any] = {
                "to": peer,
                "admitted": not answer.code,
                "code": answer.code,
                "reason": answer.reason,
                "memory_free": theirs.memory_free,
                "disk_free": theirs.disk_free,
            }
            if answer.code:
                return told
            plan = foresee(request, options, peer, await sampling, self.book.of(peer), goodput)
        finally:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError, XiatbError):
                await sampling
        self._plans[request.guest] = plan
        return told | plan.as_dict()

    def begin(self, request: Request, peer: str, options: Options) -> asyncio.Task[Plan | None]:
        """A migration begins: its prediction is the plan that its user has just asked for, or one that is
        made beside it."""
        return asyncio.ensure_future(self._foresee(request, peer, options))

    async def _foresee(self, request: Request, peer: str, options: Options) -> Plan | None:
        plan = self._plans.pop(request.guest, None)
        if plan is not None and plan.fits(request, peer, options, time.monotonic()):
            return plan
        memory = self.book.of(peer)
        if not memory.goodput:
            return None  # the first migration to this peer: a probe now would be in its way
        pid = Fence.of(request.guest, self._pids).process[0]
        try:
            workload = await asyncio.to_thread(sample, pid, request.memory)
            return foresee(request, options, peer, workload, memory, None)
        except XiatbError as error:
            log.info("no prediction for %s: %s", request.guest, error.message)
            return None

    async def end(self, foreseen: asyncio.Task[Plan | None], peer: str, result: dict[str, Any]) -> None:
        """The migration has succeeded: `predicted` goes into its result, and the pair's memory learns."""
        plan = await foreseen
        result["predicted"] = plan.prediction.as_dict() if plan is not None else None
        probed = plan.probed.rate if plan is not None and plan.probed is not None else 0.0
        self.book.learn(peer, result, probed)
