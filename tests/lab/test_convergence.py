"""Waiting for a network that comes together, without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xiatb.errors import DeadlineError
from xiatb.lab.client import SocketGoneError
from xiatb.lab.convergence import missing, wait_for
from xiatb.lab.load import load
from xiatb.lab.plan import Plan
from xiatb.lab.planner import make_plan

PLAN = make_plan(load(Path(__file__).parents[2] / "topologies" / "migration.yaml"))


class Network:
    """Answers as nodes would; everything has converged unless told otherwise."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dead: set[str] = set()
        self.asked = 0
        self.lost: dict[str, set[str]] = {}
        self.guests: dict[str, list[str]] = {"hv1": [plan.guests[0].hid]}

    def ask(self, node: str, op: str) -> dict[str, Any]:
        if node in self.dead:
            raise SocketGoneError("gone")
        own = self.plan.node(node)
        self.asked += 1
        if op == "locator":
            return {"dag": f"RE {own.hid}", "ad": own.ad or self.plan.node("r1").ad}
        if op == "joined":
            return {"hosts": [{"hid": hid} for hid in self.guests.get(node, [])]}
        xids = {ad.xid for ad in self.plan.ads} | {other.hid for other in self.plan.nodes}
        xids -= self.lost.get(node, set())
        return {kind: [{"xid": xid} for xid in xids if xid.startswith(kind)] for kind in ("AD", "HID")}


def test_nothing_is_missing_when_all_is_there() -> None:
    network = Network(PLAN)
    for condition in ("joined", "converged", "guests"):
        assert missing(PLAN, network.ask, condition) == []


def test_what_is_missing_is_named() -> None:
    network = Network(PLAN)
    network.dead = {"client"}
    network.lost = {"r1": {PLAN.node("r2").ad or "", PLAN.node("hv1").hid}}
    network.guests = {}
    assert missing(PLAN, network.ask, "joined") == ["client does not answer (gone)"]
    found = missing(PLAN, network.ask, "guests")
    assert found[1:] == ["r1 has no route to ad2", "r1 has no route to hv1", "guest vm1 is not attached"]
    assert "r1 has no route to ad2" in missing(PLAN, network.ask, "converged")


def test_a_guest_may_be_attached_anywhere() -> None:
    network = Network(PLAN)
    network.guests = {"hv2": [PLAN.guests[0].hid]}
    assert missing(PLAN, network.ask, "guests") == []


def test_waiting_ends_with_the_condition_or_names_what_is_missing() -> None:
    network, now = Network(PLAN), [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 1:
            network.dead.clear()

    network.dead = {"r1"}
    took = wait_for(PLAN, network.ask, "joined", timeout=5, pause=pause, clock=lambda: now[0])
    assert 1 < took < 1.6
    network.dead = {"r2"}
    with pytest.raises(DeadlineError, match="r2 does not answer") as caught:
        wait_for(
            PLAN,
            network.ask,
            "joined",
            timeout=0.5,
            pause=lambda _: now.__setitem__(0, now[0] + 1),
            clock=lambda: now[0],
        )
    assert caught.value.exit_code == 124


def test_nodes_that_lack_nothing_are_asked_again_only_at_the_end() -> None:
    network, rounds = Network(PLAN), []

    def pause(_: float) -> None:
        rounds.append(network.asked)
        if len(rounds) == 5:
            network.lost.clear()
        if len(rounds) == 3:
            network.lost = {"hv1": {PLAN.node("r2").ad or ""}}

    network.lost = {"r1": {PLAN.node("r2").ad or ""}, "hv1": {PLAN.node("r2").ad or ""}}
    wait_for(PLAN, network.ask, "converged", timeout=50, pause=pause)
    everyone = rounds[0]
    steps = [after - before for before, after in zip(rounds, rounds[1:], strict=False)]
    assert steps == [2, 2, 2, 1]
    assert network.asked - rounds[-1] == 1 + everyone
