"""Scenarios in real labs: the shipped ones, checks and steps that fail, interruption. Nothing is left."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.labs import INTERRUPTED, cli, leftovers, needs_root
from xiatb.lab.paths import LabPaths

pytestmark = [pytest.mark.netns, needs_root]
ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))
HEAD = f"topology: {ROOT / 'topologies' / 'minimal.yaml'}\n"


@pytest.fixture
def lab() -> Iterator[str]:
    """A name of a lab that nothing else has, and of which nothing may be left."""
    name = f"t{secrets.token_hex(4)}"
    yield name
    assert leftovers(name, "no lab has this id") == []


def run(lab: str, runs: Path, file: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    argv = cli("run", str(file), "--name", lab, "--runs", str(runs), "-o", "json", *words)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    return done, json.loads(done.stdout) if done.stdout else None


def events(directory: str) -> list[Any]:
    return [json.loads(line) for line in (Path(directory) / "events.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_scenarios_hold(file: Path, lab: str, tmp_path: Path) -> None:
    done, told = run(lab, tmp_path, file, "--set", "delay=3ms")
    assert done.returncode == 0, done.stderr
    (one,) = told["runs"]
    assert told["passed"] and one["lab"] == lab
    directory = Path(one["run"])
    assert {"events.jsonl", "result.json", "manifest.json", file.name, "ring.yaml", "wire.pcapng"} <= {
        path.name for path in directory.iterdir()
    }
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["variables"] == {"delay": "3ms"} and manifest["seed"] == one["seed"] == 1
    assert {"python", "kernel"} <= set(manifest["versions"]) and manifest["status"]["nodes"]
    stamps = [one["monotonic_ns"] for one in events(one["run"])]
    assert stamps == sorted(stamps)
    order = [(one["step"], one["event"]) for one in events(one["run"])]
    ahead = [("load", "start"), ("fail", "start"), ("fail", "end"), ("repair", "start"), ("settled", "end")]
    assert [order.index(one) for one in ahead] == sorted(order.index(one) for one in ahead)
    gap = {one["step"]: one["t"] for one in reversed(events(one["run"])) if one["event"] == "start"}
    assert gap["fail"] - gap["load"] >= 0.3


STEPS = """variables: {word: quiet}
repeat: 2
steps:
  - {name: server, exec: {on: r1, command: [sleep, 600], background: true}}
  - name: words
    exec: {on: h1, command: [sh, -c, 'echo ${word}; echo $$XIATB_NODE >&2; test -d $$XIATB_RUN; exit 3']}
    expect: {returncode: 3, stdout: "${word}", stderr: contains h1}
  - {name: lost, link_set: {link: h1 -- r1, loss: 100%, from: r1}}
  - {ping: {from: h1, to: h2, count: 2, interval: 10ms, timeout: 100ms}, expect: {received: 2, sent: 2}}
"""


def test_a_check_that_fails_ends_with_3_and_every_run_has_its_seed(lab: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(HEAD + STEPS)
    done, told = run(lab, tmp_path / "runs", file, "--seed", "40", "--set", "word=loud")
    assert done.returncode == 3
    assert "step4: received is 0, not 2" in done.stderr
    assert [one["seed"] for one in told["runs"]] == [40, 41]
    for one in told["runs"]:
        steps = {step["name"]: step for step in one["steps"]}
        assert steps["words"]["results"]["stdout"] == "loud\n"
        assert (Path(one["run"]) / "words.stdout").read_text() == "loud\n"
        assert all(check["holds"] for check in steps["words"]["checks"])
        assert steps["server"]["results"]["returncode"] == 128 + signal.SIGTERM
        assert one["failures"] == ["step4: received is 0, not 2"]
        assert json.loads((Path(one["run"]) / "result.json").read_text())["passed"] is False


@pytest.mark.parametrize(
    ("steps", "code", "words"),
    [
        ("- exec: {on: h1, command: [sleep, 60], timeout: 1ms}\n- link_down: h1 -- r1", 124, "step1: sleep"),
        ("- {name: x, exec: {on: h1, command: [sleep, 60]}}", 124, "after 1 s these steps were not done: x"),
        ("- link_set: {link: h1 -- r1, jitter: 5ms}", 1, "step1: jitter: 5ms is out of range"),
    ],
)
def test_what_goes_wrong_is_told_and_the_lab_is_taken_down(
    steps: str, code: int, words: str, lab: str, tmp_path: Path
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"{HEAD}deadline: 1s\nsteps:\n{steps}\n")
    done, told = run(lab, tmp_path / "runs", file)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert told["passed"] is False
    assert (Path(told["runs"][0]["run"]) / "manifest.json").exists()


def test_an_interrupted_run_leaves_its_record_and_no_lab(lab: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(HEAD + "steps: [{name: long, exec: {on: h1, command: [sleep, 600]}}]\n")
    argv = cli("run", str(file), "--name", lab, "--runs", str(tmp_path / "runs"), "-o", "json")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        watch = subprocess.run(
            ["timeout", "60", "sh", "-c", f"until cat {tmp_path}/runs/{lab}/*/events.jsonl; do :; done"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert watch.returncode == 0
        child.send_signal(signal.SIGINT)
        assert child.wait(60) in INTERRUPTED
    (result,) = (tmp_path / "runs" / lab).glob("*/result.json")
    assert json.loads(result.read_text())["steps"][0]["name"] == "long"
    assert not LabPaths(lab).root.exists()
