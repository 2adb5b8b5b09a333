"""XCMP echo with a fake graph: matching, losses, errors, hostile answers."""

from __future__ import annotations

import asyncio
import random

import pytest

from xiatb.node.control_protocol import ControlError, Json
from xiatb.node.pinger import Pinger, PingPlan
from xiatb.wire import xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

RNG = random.Random(4)
HERE = DAG.host(XID(XidType.AD, RNG.randbytes(20)), XID(XidType.HID, RNG.randbytes(20)))
THERE = DAG.host(XID(XidType.AD, RNG.randbytes(20)), XID(XidType.HID, RNG.randbytes(20)))


class Network:
    """Answers each request as the test says."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.source: DAG | None = HERE
        self.pinger = Pinger(self.take, lambda: self.source, random.Random(1))

    def take(self, packet: bytes) -> None:
        header = xip.parse(packet)
        assert header.dst() == THERE and header.src() == HERE
        message = xcmp.parse(header.payload)
        how = self.answers.pop(0)
        if how == "reply":
            self.give(xcmp.reply_to(bytes(header.payload)))
        elif how == "twice":
            self.give(xcmp.reply_to(bytes(header.payload)))
            self.give(xcmp.reply_to(bytes(header.payload)))
        elif how == "other":
            self.give(xcmp.echo(False, message.ident ^ 1, message.seq))
        elif how == "unreachable":
            self.give(xcmp.unreachable(xcmp.CODE_HOST, packet))
        elif how == "exceeded":
            self.give(xcmp.time_exceeded(packet))

    def give(self, message: bytes) -> None:
        self.pinger.receive(xip.build(xip.NXT_XCMP, HERE, THERE, message))

    def ping(self, count: int) -> tuple[Json, list[Json]]:
        events: list[Json] = []
        plan = PingPlan(THERE, count, 0.0, 0.05, 8)
        return asyncio.run(self.pinger.run(plan, events.append)), events


def test_every_outcome_is_told_once() -> None:
    network = Network("reply", "lost", "unreachable", "exceeded", "twice", "other")
    summary, events = network.ping(6)
    found = {event["seq"]: event["event"] for event in events}
    assert found == {
        0: "pong", 1: "ping_lost", 2: "unreachable", 3: "time_exceeded", 4: "pong", 5: "ping_lost",
    }  # fmt: skip
    assert len(events) == 6 and summary["sent"] == 6 and summary["received"] == 2
    assert all(event["from"] == str(THERE) for event in events if "from" in event)


def test_without_a_locator() -> None:
    network = Network()
    network.source = None
    with pytest.raises(ControlError):
        network.ping(1)


def test_hostile_answers_are_counted() -> None:
    pinger = Network().pinger
    rng = random.Random(2)
    good = xip.build(xip.NXT_XCMP, HERE, THERE, xcmp.unreachable(1, xip.build(1, THERE, HERE, bytes(8))))
    for _ in range(2000):
        packet = bytearray(good[: rng.randrange(len(good) + 1)])
        for _ in range(rng.randrange(4)):
            if packet:
                packet[rng.randrange(len(packet))] = rng.randrange(256)
        pinger.receive(packet)
    assert pinger.malformed > 1000
