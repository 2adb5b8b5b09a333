"""What the source's daemon asks of a guest before it moves, and what it believes of the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.migration.samples import CAPABILITIES, CHANNELS, JOB, REQUEST
from xiatb.identity.keys import KeyPair
from xiatb.migration import actions as a
from xiatb.migration import handover
from xiatb.migration import messages as m
from xiatb.migration.consent import ConsentBook, sign
from xiatb.migration.controller import words
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.handover import Departure, agent_socket, ask_consent
from xiatb.migration.source import SourceMachine
from xiatb.node.join_messages import JOIN_LEN
from xiatb.wire.xid import XidType

JOIN = "5a" * JOIN_LEN
Reply = Callable[[dict[str, Any]], bytes]


class Node:
    """Stands in for NodeAccess and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def redirect(self, *arguments: Any) -> None:
        self.asked.append(("redirect", *arguments))

    def detach(self, hid: str) -> None:
        self.asked.append(("detach", hid))

    def expect(self, hid: str, port: str) -> None:
        self.asked.append(("expect", hid, port))


def answer(result: Any) -> Reply:
    return lambda request: json.dumps({"id": request["id"], "ok": True, "result": result}).encode() + b"\n"


async def with_agent(path: Path, reply: Reply, body: Callable[[], Awaitable[None]]) -> None:
    """Runs `body` beside an agent at `path` that answers each request by `reply`, and then keeps quiet."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.strip():
                writer.write(reply(json.loads(line)))
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    async with server:
        await body()


def in_transfer() -> SourceMachine:
    machine = SourceMachine(REQUEST)
    machine.on_established(CAPABILITIES, 0.0)
    machine.on_message(CAPABILITIES, 0.1)
    machine.on_message(m.Accept(job=JOB, channels=CHANNELS, invite="00", locator="RE x"), 0.2)
    return machine


def departure(tmp: Path, machine: SourceMachine) -> tuple[Departure, Node, list[dict[str, Any]]]:
    """With the node that it asks and what it tells the user."""
    node, told = Node(), list[dict[str, Any]]()
    station: Any = SimpleNamespace(node=node, config=SimpleNamespace(runtime=tmp))
    return Departure(REQUEST, station, machine, lambda: None, told.append), node, told


def asked(tmp: Path, reply: Reply) -> tuple[SourceMachine, dict[str, Any]]:
    """A source in transfer after the guest's agent has answered by `reply`."""
    machine = in_transfer()
    asking = [x for x in machine.take_actions() if isinstance(x, a.AskDelegation)]
    leaving, _, told = departure(tmp, machine)

    async def body() -> None:
        leaving.perform(asking[0])
        await asyncio.gather(*leaving._tasks)

    asyncio.run(with_agent(agent_socket(tmp, REQUEST.guest), reply, body))
    leaving.perform(a.DetachGuest())
    assert len(told) == (not leaving.report()["delegated"])
    return machine, leaving.report()


def test_the_guests_join_goes_to_the_destination(tmp_path: Path) -> None:
    machine, report = asked(tmp_path, answer({"join": JOIN}))
    assert [x.message for x in machine.take_actions() if isinstance(x, a.Send)] == [
        m.Delegation(job=JOB, join=JOIN)
    ]
    assert report["delegated"] and report["asked_ms"] > 0


@pytest.mark.parametrize(
    "reply",
    [
        answer({"join": JOIN[:-2]}), answer({"join": JOIN + "00"}), answer({"join": 7}), answer({}),
        answer([]), answer({"join": "zz" * JOIN_LEN}), lambda request: b"\0" * 300_000 + b"\n",
        lambda request: b"",
        lambda request: json.dumps({"id": request["id"], "ok": False, "error": "no"}).encode() + b"\n",
        lambda request: json.dumps({"id": 1, "ok": True, "result": {"join": JOIN}}).encode() + b"\n",
    ],
)  # fmt: skip
def test_anything_else_is_no_delegation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    monkeypatch.setattr(handover, "ASK_S", 0.2)
    machine, report = asked(tmp_path, reply)
    assert not machine.take_actions() and machine.state == "transfer" and not report["delegated"]


@given(st.binary(max_size=400))
def test_a_guest_that_says_anything_harms_nothing(noise: bytes) -> None:
    machine = in_transfer()
    exchange = handover.Exchange({"op": "delegate", "invite": "00"})
    assert exchange.feed(noise) is None or noise
    assert machine.state == "transfer"


def test_without_an_agent_it_goes_on(tmp_path: Path) -> None:
    machine = in_transfer()
    machine.take_actions()
    leaving, node, told = departure(tmp_path, machine)

    async def body() -> None:
        leaving.perform(a.AskDelegation("00", "RE x"))
        await asyncio.gather(*leaving._tasks)

    asyncio.run(body())
    assert not machine.take_actions() and not node.asked and not told
    for action in (a.DetachGuest(), a.ReattachGuest(), a.DetachGuest()):  # stopped, run on, stopped again
        leaving.perform(action)
    (entry,) = told
    assert "no delegation: " in words(entry) and entry["by"] == "handover"


def test_stop_redirects_when_it_is_known_where_to(tmp_path: Path) -> None:
    leaving, node, told = departure(tmp_path, in_transfer())
    leaving.perform(a.DetachGuest())
    leaving.perform(a.AskDelegation("", "RE x"))
    leaving.perform(a.DetachGuest())
    leaving.perform(a.ReattachGuest())
    hid = REQUEST.hid
    assert node.asked == [
        ("detach", hid), ("redirect", hid, "RE x", handover.REDIRECT_S), ("expect", hid, REQUEST.port)
    ]  # fmt: skip
    assert not told, "there was no invitation that the guest could have answered"


def test_a_delegation_is_of_use_only_before_the_stop() -> None:
    source = in_transfer()
    source.on_stopped(5, 0.3)
    source.take_actions()
    assert not source.on_delegated(JOIN, 0.4)
    assert not source.take_actions()
    destination = DestinationMachine()
    destination.on_established(CAPABILITIES, 0.0)
    destination.on_message(CAPABILITIES, 0.1)
    destination.on_message(REQUEST, 0.2)
    destination.on_message(m.Delegation(job=JOB, join=JOIN), 0.3)
    destination.on_prepared(CHANNELS, "", "", 0.4, "", ("00", "RE x"))
    destination.take_actions()
    destination.on_message(m.Delegation(job=JOB, join=JOIN), 0.5)
    assert destination.take_actions() == [a.HoldDelegation(JOIN)]
    destination.on_message(m.Switchover(job=JOB, t_stop=5), 0.6)
    assert [type(x) for x in destination.take_actions()] == [a.Phase, a.ExpectGuest]
    destination.on_message(m.Delegation(job=JOB, join=JOIN), 0.7)
    assert not destination.take_actions() and destination.state == "switchover"


def test_the_guests_consent(tmp_path: Path) -> None:
    key, there = KeyPair.generate(), KeyPair.generate().xid(XidType.SID)
    given_ = sign(key, there, 7)
    found: list[m.Consent | None] = []

    async def body() -> None:
        found.append(await ask_consent(tmp_path / "agent.sock", there, 2.0))

    told = {"public": given_.public, "sequence": 7, "signature": given_.signature}
    asyncio.run(with_agent(tmp_path / "agent.sock", answer(told), body))
    asyncio.run(with_agent(tmp_path / "agent.sock", answer({**told, "sequence": "7"}), body))
    assert found == [given_, None]
    ConsentBook(tmp_path / "book").take(given_, str(key.xid(XidType.HID)), there)
