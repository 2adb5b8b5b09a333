"""Routing between node processes in namespaces: inside an AD, between ADs, and around a failure."""

from __future__ import annotations

import time

import pytest

from tests.node.minilab import Client, MiniLab
from tests.node.namespaces import ip, needs_root

pytestmark = [needs_root, pytest.mark.netns]


def answers(client: Client, dag: object, within: float = 5.0) -> bool:
    """Whether `dag` answers an echo before `within` seconds have passed."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if client.ask("ping", dag=str(dag), count=1, timeout=0.3)["received"]:
            return True
    return False


@pytest.mark.alone
def test_two_ads_and_a_detour(lab: MiniLab) -> None:
    for name, ad in (("r1", "ad1"), ("r2", "ad1"), ("r3", "ad2"), ("r4", "ad2")):
        lab.node(name, "router", ad=ad)
    for name in ("h1", "h4"):
        lab.node(name, "host")
    lab.link("h1", "r1")
    lab.link("r1", "r2")
    lab.link("r2", "r3")
    lab.link("r3", "r4")
    lab.link("h4", "r4")
    lab.link("r4", "r1")
    for name in lab.ports:
        lab.start(name)
    h1 = lab.joined("h1")
    lab.joined("h4")
    assert answers(h1, lab.locator("r2", "ad1"))
    assert answers(h1, lab.locator("r3", "ad2"))
    assert answers(h1, lab.locator("h4", "ad2"))
    ip("-n", lab.net["r1"], "link", "set", "eth2", "down")  # r4 -- r1
    start = time.monotonic()
    assert answers(h1, lab.locator("h4", "ad2"))
    assert time.monotonic() - start < 1.5
    neighbours = lab.client("r1").ask("neighbours")["neighbours"]
    assert [row["hid"] for row in neighbours if row.get("up")] == [str(lab.hid("r2"))]
