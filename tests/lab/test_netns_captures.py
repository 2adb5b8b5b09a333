"""Captures show every packet: those that eBPF forwards, those delayed by a line, those about to be lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab.labs import TestLab, needs_root, running
from xiatb.experiments.capturefile import read_frames
from xiatb.fastpath import probe
from xiatb.lab.client import LabClient, ask_node

pytestmark = [
    pytest.mark.netns,
    needs_root,
    pytest.mark.skipif(not probe.available()[0], reason="eBPF does not load here"),
]

LINE = """
name: x
nodes:
  h1: {kind: host}
  r1: {kind: router, ad: ad1}
  r2: {kind: router, ad: ad1}
  h2: {kind: host}
links:
  - h1 -- r1
  - r1 -- r2
  - {endpoints: [r2, h2], loss: 0.0001%}
"""
PORTS = (("h1", "eth0"), ("r1", "eth0"), ("r1", "eth1"), ("r2", "eth0"), ("r2", "eth1"), ("h2", "eth0"))
PINGS, SIZE = 60, 333
PATIENCE_S = "3"
"""For the last answer: one that came later would be missing with ping and be there at the ports."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    with running(tmp_path_factory.mktemp("lab"), LINE) as (one, _):
        yield one


def pinged(lab: TestLab, directory: Path) -> tuple[dict[str, Any], dict[tuple[str, str], int]]:
    """Pings from h1 to h2 under captures everywhere: what ping says, and frames of their length by port."""
    with LabClient(lab.name, timeout=30) as client:
        running_ = {
            (node, port): client.request(
                "capture_start", node=node, port=port, file=str(directory / f"{node}-{port}.pcapng")
            )["capture"]
            for node, port in PORTS
        }
        words = ("h1", "h2", "-c", str(PINGS), "-i", "0.01", "-W", PATIENCE_S, "-s", str(SIZE), "-o", "json")
        told = json.loads(lab.cli("ping", "-l", lab.name, *words).stdout)

    def stop(capture: str) -> int:
        with LabClient(lab.name, timeout=30) as client:
            return int(client.request("capture_stop", capture=capture)["dropped"])

    with ThreadPoolExecutor(len(PORTS)) as pool:  # each takes half a second
        assert list(pool.map(stop, running_.values())) == [0] * len(PORTS)
    lengths = {
        port: Counter(frame.length for frame in read_frames(directory / f"{'-'.join(port)}.pcapng"))
        for port in PORTS
    }
    ((ping, _),) = lengths["h1", "eth0"].most_common(1)  # requests and answers are equally long
    assert ping > SIZE
    return told, {port: lengths[port][ping] for port in PORTS}


def test_on_plain_and_on_delayed_links(lab: TestLab, tmp_path: Path) -> None:
    assert ask_node(lab.paths, "r1", "status")["engine"] == "ebpf"
    for values in ({}, {"delay": "3ms", "rate": "50mbit"}):
        with LabClient(lab.name, timeout=30) as client:
            client.request("link_set", params={"a": "r1", "b": "r2", "set": values, "replace": True})
        told, seen = pinged(lab, tmp_path)
        assert told["sent"] == told["received"] == PINGS
        assert seen == dict.fromkeys(PORTS, 2 * PINGS), "each request and each answer, once at each port"


def test_a_topologys_losses_are_the_kernels_from_the_beginning(lab: TestLab) -> None:
    with LabClient(lab.name) as client:
        (link,) = client.request("link_show", params={"a": "r2", "b": "h2"})["links"]
    assert link["backend"] in ("tc-bpf", "netem")
    if link["backend"] == "tc-bpf":
        for way in ("forward", "backward"):
            assert link[way]["counters"]["taken"] > 0, "the join's frames at least"


def test_on_links_that_lose(lab: TestLab, tmp_path: Path) -> None:
    with LabClient(lab.name, timeout=30) as client:
        change = {"a": "r1", "b": "r2", "set": {"loss": "30%"}, "from": "r1", "replace": True}
        client.request("link_set", params=change)
        told, seen = pinged(lab, tmp_path)
        client.request("link_set", params={"a": "r1", "b": "r2", "set": {}, "replace": True})
    answered = told["received"]
    assert told["sent"] == PINGS > answered > 0
    before = {port: seen[port] for port in PORTS[:3]}
    after = {port: seen[port] for port in PORTS[3:]}
    assert before == dict.fromkeys(PORTS[:3], PINGS + answered), "the sender's ports see what will be lost"
    assert after == dict.fromkeys(PORTS[3:], 2 * answered)


def test_what_a_full_queue_drops_behind_the_engine_is_counted(lab: TestLab) -> None:
    """eBPF sends into the egress port's qdisc: every ping that is lost was dropped there, and is told of."""
    change = {"a": "r1", "b": "r2", "set": {"rate": "2mbit", "queue": "20k"}, "from": "r1", "replace": True}
    with LabClient(lab.name, timeout=30) as client:
        client.request("link_set", params=change)
        words = ("h1", "h2", "-c", "150", "-i", "0.001", "-W", PATIENCE_S, "-s", "1000", "-o", "json")
        told = json.loads(lab.cli("ping", "-l", lab.name, *words).stdout)
        (link,) = client.request("link_show", params={"a": "r1", "b": "r2"})["links"]
        client.request("link_set", params={**change, "set": {}})
    lost = told["sent"] - told["received"]
    assert told["sent"] == 150 > lost > 0
    assert lost <= link["forward"]["queue_dropped"] <= lost + 5, "HELLOs may be dropped, too"
    assert link["backward"]["queue_dropped"] is None
