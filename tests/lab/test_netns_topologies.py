"""The shipped topologies come up, every verb works on them, and the example of docs/experiments.md runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.labs import TestLab, leftovers, needs_root, running
from tests.lines import next_line
from xiatb.lab.state import LabState

pytestmark = [pytest.mark.netns, needs_root]

ROOT = Path(__file__).resolve().parents[2]
Lab = tuple[TestLab, LabState]


def shipped(name: str) -> str:
    return (ROOT / "topologies" / f"{name}.yaml").read_text()


@pytest.fixture(scope="module")
def minimal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    with running(tmp_path_factory.mktemp("minimal"), shipped("minimal")) as (lab, _):
        yield lab


def told(lab: TestLab, *words: str) -> Any:
    """What a verb says with -o json; it must end with 0 and write nothing else to standard output."""
    done = lab.cli(*words, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_status_and_list_as_json(minimal: TestLab) -> None:
    status = told(minimal, "status", minimal.name)
    assert {
        "lab",
        "status",
        "since",
        "shaping_backend",
        "nodes",
        "links",
        "guests",
        "processes",
        "seed",
    } <= set(status)
    assert {"name", "kind", "ad", "state", "pid", "hid"} <= set(status["nodes"][0])
    assert {"name", "mtu", "rate", "delay_ns", "loss_ppm", "backend", "alive"} <= set(status["links"][0])
    mine = [one for one in told(minimal, "list") if one["lab"] == minimal.name]
    assert [(one["status"], one["nodes"], one["guests"]) for one in mine] == [("up", 3, 0)]


def test_text_for_people(minimal: TestLab) -> None:
    shown = minimal.cli("status", minimal.name)
    assert shown.returncode == 0
    row = r"^r1 +router +ad1 +joined +(?:ebpf|click)\S* +\d+ +HID:[0-9a-f]{8}$"
    assert re.search(row, shown.stdout, re.MULTILINE)
    assert minimal.name in minimal.cli("list").stdout


def test_inspect_shows_ports_and_routes(minimal: TestLab) -> None:
    shown = told(minimal, "inspect", "-l", minimal.name, "r1")
    assert set(shown) >= {"status", "routes", "neighbours", "interfaces"}
    assert shown["interfaces"]["eth0"]["rx_packets"] > 0
    routed = {route["xid"] for routes in shown["routes"].values() for route in routes}
    hosts = [told(minimal, "inspect", "-l", minimal.name, node)["status"]["hid"] for node in ("h1", "h2")]
    assert routed >= set(hosts)
    assert minimal.cli("inspect", "-l", minimal.name, "r9").returncode == 2


def test_logs_of_nodes_and_supervisor(minimal: TestLab) -> None:
    assert minimal.cli("logs", "-l", minimal.name).returncode == 0
    assert minimal.cli("logs", "-l", minimal.name, "r1", "-n", "5").returncode == 0
    wrong = minimal.cli("logs", "-l", minimal.name, "r2")
    assert (wrong.returncode, wrong.stderr.count("no node named 'r2'")) == (2, 1)


def test_shell_ends_with_the_shells_code(minimal: TestLab) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xiatb.cli.main", "shell", "-l", minimal.name, "h1"],
        input="echo $XIATB_NODE; exit 3\n", capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "h1" in done.stdout.split()


def test_capture_writes_what_a_ping_sends(minimal: TestLab, tmp_path: Path) -> None:
    file = tmp_path / "ping.pcapng"
    words = ["capture", "-l", minimal.name, "r1:eth0", "-w", str(file), "-c", "4", "--duration", "20s"]
    capture = subprocess.Popen(
        [sys.executable, "-m", "xiatb.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "capturing at r1:eth0" in next_line(capture.stderr)
    assert minimal.cli("ping", "-l", minimal.name, "h1", "h2", "-c", "4", "-i", "50ms").returncode == 0
    out, _ = capture.communicate(timeout=30)
    assert capture.returncode == 0
    assert re.match(r"4 frames, 0 dropped", out)
    shown = subprocess.run(
        ["tshark", "-r", str(file), "-T", "fields", "-e", "eth.type"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(shown.split()) <= {"0xc0de", "0x9990", "0x9991"}


def test_abilene_comes_up_and_a_ping_takes_the_shortest_way(tmp_path: Path) -> None:
    with running(tmp_path, shipped("abilene")) as (lab, state):
        assert {node.process is not None for node in state.nodes.values()} == {True}
        result = told(lab, "ping", "-l", lab.name, "west", "east", "-c", "3", "-i", "100ms", "-W", "2s")
        assert result["received"] == 3
        # Sunnyvale, Denver, Kansas City, Indianapolis, Chicago, New York: 27.3 ms each way.
        assert 54.6 <= result["rtt_min_ms"] < 80


def example_of_the_docs() -> str:
    """The Python block of docs/experiments.md that is marked as the minimal one."""
    text = (ROOT / "docs" / "experiments.md").read_text()
    block = re.search(r"<!-- test: minimal -->\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    lab = TestLab(tmp_path)
    code = example_of_the_docs()
    assert code.count('"experiment"') == 1
    file = tmp_path / "example.py"
    file.write_text(code.replace('"experiment"', repr(lab.name)))
    done = subprocess.run(
        [sys.executable, str(file)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^h1 is at RE AD:[0-9a-f]{40} HID:[0-9a-f]{40}$", done.stdout, re.MULTILINE)
    assert leftovers(lab.name, "none") == []
