"""Captures show every packet: those that eBPF forwards, those delayed by a line, those about to be lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.lab.labs import TestLab, needs_root, running
from xiatb.experiments.capturefile import read_frames
from xiatb.fastpath import probe
from xiatb.lab.client import ControlClient, LabClient, ask_node
from xiatb.lab.state import read_plan

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
PATIENCE_S = 3.0
"""For the last answer: one that came later would be missing with ping and be there at the ports."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    with running(tmp_path_factory.mktemp("lab"), LINE) as (one, _):
        yield one


def change(lab: TestLab, values: dict[str, str], **fields: str) -> None:
    """Gives the link of r1 and r2 these parameters and no others."""
    with LabClient(lab.name, timeout=30) as client:
        client.request("link_set", params={"a": "r1", "b": "r2", "set": values, "replace": True, **fields})


def ping(lab: TestLab, count: int, interval: float, size: int) -> dict[str, Any]:
    """What h1's ping of h2 says. It begins at once: no program has to be started first."""
    told = {"dag": read_plan(lab.paths).node("h2").dag, "timeout": PATIENCE_S}
    with ControlClient(lab.paths.control("h1"), timeout=60) as client:
        return client.request("ping", params={**told, "count": count, "interval": interval, "size": size})


def pinged(
    lab: TestLab, directory: Path, values: dict[str, str], **fields: str
) -> tuple[dict[str, Any], dict[tuple[str, str], int]]:
    """Pings from h1 to h2 under captures everywhere over a link that is changed just before: what ping says,
    and frames of their length by port."""
    with LabClient(lab.name, timeout=30) as client:
        running_ = {
            (node, port): client.request(
                "capture_start", node=node, port=port, file=str(directory / f"{node}-{port}.pcapng")
            )["capture"]
            for node, port in PORTS
        }
        change(lab, values, **fields)
        told = ping(lab, PINGS, 0.01, SIZE)

    def stop(capture: str) -> int:
        with LabClient(lab.name, timeout=30) as client:
            return int(client.request("capture_stop", capture=capture)["dropped"])

    with ThreadPoolExecutor(len(PORTS)) as pool:  # each takes half a second
        assert list(pool.map(stop, running_.values())) == [0] * len(PORTS)
    lengths = {
        port: Counter(frame.length for frame in read_frames(directory / f"{'-'.join(port)}.pcapng"))
        for port in PORTS
    }
    ((length, _),) = lengths["h1", "eth0"].most_common(1)  # requests and answers are equally long
    assert length > SIZE
    return told, {port: lengths[port][length] for port in PORTS}


def test_on_plain_and_on_delayed_links(lab: TestLab, tmp_path: Path) -> None:
    assert ask_node(lab.paths, "r1", "status")["engine"] == "ebpf"
    for values in ({}, {"delay": "3ms", "rate": "50mbit"}):
        told, seen = pinged(lab, tmp_path, values)
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
    """The pings are through before HELLOs that are lost, too, could take the neighbour away."""
    told, seen = pinged(lab, tmp_path, {"loss": "30%"}, **{"from": "r1"})
    change(lab, {})
    answered = told["received"]
    assert told["sent"] == PINGS > answered > 0
    before = {port: seen[port] for port in PORTS[:3]}
    after = {port: seen[port] for port in PORTS[3:]}
    assert before == dict.fromkeys(PORTS[:3], PINGS + answered), "the sender's ports see what will be lost"
    assert after == dict.fromkeys(PORTS[3:], 2 * answered)


def test_what_a_full_queue_drops_behind_the_engine_is_counted(lab: TestLab) -> None:
    """eBPF sends into the egress port's qdisc: every ping that is lost was dropped there, and is told of."""
    change(lab, {"rate": "2mbit", "queue": "20k"}, **{"from": "r1"})
    told = ping(lab, 150, 0.001, 1000)
    with LabClient(lab.name, timeout=30) as client:
        (link,) = client.request("link_show", params={"a": "r1", "b": "r2"})["links"]
    change(lab, {}, **{"from": "r1"})
    lost = told["sent"] - told["received"]
    assert told["sent"] == 150 > lost > 0
    assert lost <= link["forward"]["queue_dropped"] <= lost + 5, "HELLOs may be dropped, too"
    assert link["backward"]["queue_dropped"] is None
