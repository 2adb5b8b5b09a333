"""`migrate --plan`: what a migration would be, without starting anything.

The destination checks its admission (message `examine`) and takes a probe of the path's goodput; the guest's
memory is sampled here; the predictor simulates the controller with both. A migration that begins makes such a
prediction by itself, beside its own work and without a probe, when the rate to this peer is known.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from xiatb.errors import DeadlineError, XiatbError
from xiatb.migration import messages as m
from xiatb.migration import params, probe, tokens
from xiatb.migration.calibration import Memory
from xiatb.migration.channels import read_frame
from xiatb.migration.control_link import ControlLink
from xiatb.migration.options import Options
from xiatb.migration.predictor import Path, Prediction, Workload, predict
from xiatb.migration.steering import bounds_of
from xiatb.migration.wirestream import Wire
from xiatb.migration.workload import GuestMemory, SamplingError, measure

log = logging.getLogger("xiatb.migration")
ANSWER_S: Final = 15.0
FRESH_S: Final = 120.0
"""A plan that is older than this is not the prediction of a migration that begins now."""
LEAST_RATE: Final = 1.0
"""Bytes a second below which nothing can be predicted."""


@dataclass(frozen=True)
class Plan:
    """All that is known before a migration. probed: None when the rate is that of the last migration."""

    request: m.Request
    peer: str
    options: Options
    workload: Workload
    path: Path
    probed: probe.Goodput | None
    prediction: Prediction
    made: float

    def fits(self, request: m.Request, peer: str, options: Options, now: float) -> bool:
        """Whether a migration that begins `now` (monotonic seconds) is the one of this plan."""
        same = (request.guest, request.storage, peer, options)
        mine = (self.request.guest, self.request.storage, self.peer, self.options)
        return same == mine and now - self.made < FRESH_S

    def as_dict(self) -> dict[str, Any]:
        """For the user; keys are stable. Bytes, seconds, bytes a second."""
        request, options = self.request, self.options
        return {
            "guest": request.guest,
            "mode": request.mode,
            "storage": request.storage,
            "storage_bytes": storage_bytes(request),
            "channels": channels(request),
            "encrypted": bool(request.tls),
            "verify": request.verify,
            "policy": asdict(bounds_of(options)),
            "workload": asdict(self.workload),
            "goodput": round(self.path.goodput),
            "round_trip_ms": round(1000 * self.path.round_trip, 3),
            "rate_from": "probe" if self.probed else "last migration",
            "predicted": self.prediction.as_dict(),
        }


def storage_bytes(request: m.Request) -> int:
    """Bytes of disk that the migration copies first."""
    return sum(disk.allocated for disk in request.disks) if request.storage else 0


def channels(request: m.Request) -> dict[str, int]:
    """Streams by kind that the migration opens."""
    return {
        "rpc": 1,
        "ram": params.memory_channels(request),
        "nbd": len(request.disks) if request.storage else 0,
    }


def sample(pid: int, ram: int) -> Workload:
    """The guest's memory at work, in about two seconds; blocks. Raises SamplingError."""
    if not pid:
        raise SamplingError("the guest's process is not known")
    with GuestMemory(pid, ram) as memory:
        return measure(memory, random.Random(time.monotonic_ns()), _pause)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def foresee(
    request: m.Request, options: Options, peer: str, workload: Workload, memory: Memory,
    probed: probe.Goodput | None,
) -> Plan:  # fmt: skip
    """A plan of measurements; `probed` is None to take the rate of the last migration. Raises XiatbError when
    no rate is known."""
    rate = probed.rate * memory.share if probed else memory.goodput
    if rate < LEAST_RATE:
        raise XiatbError(f"no rate to {peer} is known yet")
    path = Path(rate, probed.round_trip if probed else 0.0)
    prediction = predict(
        workload, path, bounds_of(options), storage=storage_bytes(request), costs=memory.costs,
        postcopy_at_once=request.mode == "postcopy",
    )  # fmt: skip
    return Plan(request, peer, options, workload, path, probed, prediction, time.monotonic())


class Examination:
    """A control session in which the destination is only asked. `dial` opens a stream for a channel of a
    kind, encrypted when the pin is not empty."""

    def __init__(
        self, link: ControlLink, request: m.Request, dial: Callable[[str, str], Awaitable[Wire]]
    ) -> None:
        self._link = link
        self._request = request
        self._dial = dial
        self._answers: asyncio.Queue[m.Message | str] = asyncio.Queue()

    async def run(self, own: m.Capabilities) -> tuple[m.Capabilities, m.Examined, probe.Goodput | None]:
        """The destination's capabilities, its answer, and the path's goodput if the guest may come.

        Raises XiatbError, OSError, DeadlineError; the session is over then and afterwards.
        """
        self._link.start(self._answers.put_nowait, self._answers.put_nowait)
        try:
            self._link.send(own)
            theirs = await self._answer(m.Capabilities)
            self._link.send(m.Examine(job=self._request.job, request=self._request))
            answer = await self._answer(m.Examined)
            goodput = None if answer.code else await self._probe(answer)
            self._link.send(m.Release(job=self._request.job))
        finally:
            await self._link.close()
        return theirs, answer, goodput

    async def _answer(self, wanted: type[m.T]) -> m.T:
        try:
            message = await asyncio.wait_for(self._answers.get(), ANSWER_S)
        except TimeoutError:
            raise DeadlineError("the destination did not answer in time") from None
        if isinstance(message, str):
            raise XiatbError(f"control stream to the destination lost: {message}")
        if not isinstance(message, wanted):
            raise XiatbError(f"the destination answered {message.TYPE}")
        return message

    async def _probe(self, answer: m.Examined) -> probe.Goodput | None:
        granted = next((one for one in answer.channels if one.kind == "probe"), None)
        if granted is None:
            return None
        wire = await self._dial(answer.tls, "probe")
        try:
            key = self._link.session.channel_key
            await wire.write(tokens.pack_open(self._request.job, granted, key))
            _, body = await read_frame(wire)
            if refusal := tokens.parse_answer(body):
                raise XiatbError(f"the destination refused the probe: {refusal}")
            goodput = await probe.send(wire)
            await wire.close()
        except BaseException:
            wire.abort()
            raise
        return goodput
