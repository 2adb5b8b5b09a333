"""A pulled cable is noticed by its carrier: routes and joins follow at once, not after a silence."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.lab.labs import TestLab, needs_root, running
from tests.node.minilab import Client
from xiatb.lab.client import LabClient, ask_node
from xiatb.lab.plan import Plan
from xiatb.lab.state import read_plan

pytestmark = [pytest.mark.netns, needs_root, pytest.mark.alone]

TRIANGLE = """
name: x
nodes:
  h1: {kind: host}
  h2: {kind: host}
  r1: {kind: router, ad: ad1}
  r2: {kind: router, ad: ad1}
  r3: {kind: router, ad: ad1}
links:
  - h1 -- r1
  - r1 -- r2
  - r1 -- r3
  - r3 -- r2
  - h2 -- r2
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    with running(tmp_path_factory.mktemp("lab"), TRIANGLE) as (one, _):
        yield one


def switch(lab: TestLab, a: str, b: str, *, up: bool) -> None:
    with LabClient(lab.name) as client:
        client.request("link_state", a=a, b=b, up=up)


def until(holds: Callable[[], bool]) -> None:
    """Each try is a round trip to a node. By its deadline a silence would have been noticed, too: that the
    carrier was what told is in the logs."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline


def port_towards(lab: TestLab, plan: Plan, node: str, target: str) -> int:
    hid = plan.node(target).hid
    rows = ask_node(lab.paths, node, "routes")["HID"]
    return next((int(row["port"]) for row in rows if row["xid"] == hid), -1)


def log(lab: TestLab, node: str) -> list[str]:
    (path,) = lab.paths.node(node).glob("*.log")
    return path.read_text().splitlines()


def first(lines: list[str], words: str) -> int:
    return next(number for number, line in enumerate(lines) if re.search(words, line))


def test_routers_go_around_a_pulled_cable(lab: TestLab) -> None:
    plan = read_plan(lab.paths)
    until(lambda: port_towards(lab, plan, "r1", "h2") == 2)
    before = {node: len(log(lab, node)) for node in ("r1", "r2")}
    switch(lab, "r1", "r2", up=False)
    until(lambda: port_towards(lab, plan, "r1", "h2") == 3)
    until(lambda: port_towards(lab, plan, "r2", "h1") == 2)
    for node, port in (("r1", 2), ("r2", 1)):
        lines = log(lab, node)[before[node] :]
        gone = first(lines, f"at port {port} is down: link is down")
        assert first(lines, f"port {port} .* is down$") < gone
        assert not any("silent" in line for line in lines), "the carrier told, not a missing HELLO"
    assert json.loads(lab.cli("ping", "-l", lab.name, "h1", "h2", "-c", "1", "-o", "json").stdout)["received"]
    switch(lab, "r1", "r2", up=True)
    until(lambda: port_towards(lab, plan, "r1", "h2") == 2)


def test_a_host_loses_its_locator_with_the_carrier_and_joins_with_it(lab: TestLab) -> None:
    """Three times: the kernel is in no hurry to tell of the second change within a second."""
    client = Client(lab.paths.control("h1"))
    client.ask("subscribe")
    before = len(log(lab, "h1"))
    try:
        for _ in range(3):
            switch(lab, "h1", "r1", up=False)
            client.wait_event("locator_lost")
            switch(lab, "h1", "r1", up=True)
            assert client.wait_event("locator")["dag"] == read_plan(lab.paths).node("h1").dag
    finally:
        client.close()
    lines = log(lab, "h1")[before:]
    words = [") is down", "no router", "is up", "located at"]
    assert [word for line in lines for word in words if word in line] == words * 3


def test_carrier_news_are_there_when_the_switch_answers(lab: TestLab) -> None:
    """h1's interface and its peer have the same number, which makes the kernel hold the news back."""
    with LabClient(lab.name) as client:
        for up in (False, True, False, True):
            client.request("link_state", a="h1", b="r1", up=up)
            done = lab.cli("exec", "-l", lab.name, "h1", "--", "cat", "/sys/class/net/eth0/operstate")
            assert done.stdout.strip() in (("up",) if up else ("down", "lowerlayerdown"))
