"""XCMP echo from a node: sends requests through its own graph, matches replies and errors, measures."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.node.control_protocol import ControlError, Json
from xiatb.wire import xcmp, xip
from xiatb.wire.dag import DAG

MAX_DATA = 60000


class PingPlan(NamedTuple):
    """What to send: `requests` echo requests to `dag`, `interval` s apart, each awaited for `timeout` s."""

    dag: DAG
    requests: int
    interval: float
    timeout: float
    size: int


class _Pending(NamedTuple):
    sent_ns: int
    outcome: asyncio.Future[Json]


class Pinger:
    """All echo requests of one node that are under way, by (identifier, sequence number).

    send(xip): hands a whole XIP packet to the graph; source(): the node's present address.
    """

    def __init__(
        self, send: Callable[[bytes], None], source: Callable[[], DAG | None], rng: random.Random
    ) -> None:
        self._send = send
        self._source = source
        self._next_ident = rng.randrange(65536)
        self._pending: dict[tuple[int, int], _Pending] = {}
        self.malformed = 0

    async def run(self, plan: PingPlan, report: Callable[[Json], None]) -> Json:
        """Sends the requests and reports an event for each: pong, unreachable, time_exceeded or lost.

        Returns {sent, received, rtt_min_ms, rtt_avg_ms, rtt_max_ms} (rtt_* null without an answer).
        Raises ControlError ENETUNREACH when this node has no address.
        """
        if self._source() is None:
            raise ControlError("ENETUNREACH", "this node has joined no network")
        ident = self._next_ident = (self._next_ident + 1) & 0xFFFF
        rtts: list[float] = []
        start = time.monotonic()
        waiting: set[asyncio.Task[Json]] = set()
        try:
            for number in range(plan.requests):
                await asyncio.sleep(max(0.0, start + number * plan.interval - time.monotonic()))
                task = asyncio.ensure_future(self._one(ident, number & 0xFFFF, plan))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                task.add_done_callback(lambda done: _tell(done, rtts, report))
            while waiting:
                await asyncio.wait(waiting)
        finally:
            for task in waiting:
                task.cancel()
        return {
            "sent": plan.requests,
            "received": len(rtts),
            "rtt_min_ms": min(rtts, default=None),
            "rtt_avg_ms": sum(rtts) / len(rtts) if rtts else None,
            "rtt_max_ms": max(rtts, default=None),
        }

    async def _one(self, ident: int, seq: int, plan: PingPlan) -> Json:
        source = self._source()
        if source is None:
            # The locator was lost on the way: as good as a lost packet.
            return {"event": "ping_lost", "seq": seq}
        outcome: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._pending[ident, seq] = _Pending(time.monotonic_ns(), outcome)
        try:
            self._send(
                xip.build(xip.NXT_XCMP, plan.dag, source, xcmp.echo(True, ident, seq, bytes(plan.size)))
            )
            return await asyncio.wait_for(outcome, plan.timeout)
        except TimeoutError:
            return {"event": "ping_lost", "seq": seq}
        finally:
            self._pending.pop((ident, seq), None)

    def receive(self, packet: bytes | bytearray | memoryview) -> None:
        """Takes a whole XIP packet with an XCMP message that was addressed to this node."""
        now_ns = time.monotonic_ns()
        try:
            header = xip.parse(packet)
            message = xcmp.parse(header.payload)
            quoted = _quoted_echo(message.original()) if message.is_error else None
            origin = str(header.src())
        except WireError:
            self.malformed += 1
            return
        if message.type == xcmp.ECHO_REPLY:
            pending = self._pending.get((message.ident, message.seq))
            event: Json = {"event": "pong", "seq": message.seq, "from": origin}
        elif quoted is not None:
            pending = self._pending.get(quoted)
            name = "time_exceeded" if message.type == xcmp.TIME_EXCEEDED else "unreachable"
            event = {"event": name, "seq": quoted[1], "code": message.code, "from": origin}
        else:
            return
        if pending is not None and not pending.outcome.done():
            event["rtt_ms"] = (now_ns - pending.sent_ns) / 1e6
            pending.outcome.set_result(event)


def _tell(task: asyncio.Task[Json], rtts: list[float], report: Callable[[Json], None]) -> None:
    if task.cancelled() or task.exception() is not None:
        return
    event = task.result()
    if event["event"] == "pong":
        rtts.append(event["rtt_ms"])
    report(event)


def _quoted_echo(original: xip.Header) -> tuple[int, int] | None:
    """(ident, seq) of the echo request that an XCMP error quotes; None when it quotes something else.

    Errors quote the header and at least 8 bytes of payload (xia-core xcmp.cc:138-153).
    """
    quoted = bytes(original.payload[:8])
    if original.nxt != xip.NXT_XCMP or len(quoted) < 8 or quoted[0] != xcmp.ECHO_REQUEST:
        return None
    return int.from_bytes(quoted[4:6], "big"), int.from_bytes(quoted[6:8], "big")
