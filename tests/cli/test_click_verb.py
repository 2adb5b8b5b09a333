"""The verbs `xiatb click` and `xiatb elements`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xiatb.cli.main import main

CONFIGS = Path(__file__).resolve().parents[2] / "click_configs"
GOOD = "elementclass Hold { input -> q :: Queue(5) -> output }\nRatedSource -> h :: Hold -> Discard;\n"


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.click"
    path.write_text(GOOD)
    return str(path)


def test_check_says_what_is_there(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["click", "check", good]) == 0
    assert capsys.readouterr().out == f"{good}: ok, 3 elements, 2 connections\n"
    assert main(["click", "check", "-o", "json", good]) == 0
    assert json.loads(capsys.readouterr().out) == [{"file": good, "elements": 3, "connections": 2}]


def test_shipped_configurations_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["click", "check", *map(str, sorted(CONFIGS.rglob("*.click")))]) == 0


def test_check_reports_everything_and_exits_2(
    tmp_path: Path, good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.click"
    bad.write_text("a :: Quue;\nIdle -> Queue(x) -> -> Discard;\n")
    missing = tmp_path / "missing.click"
    assert main(["click", "check", str(bad), good, str(missing)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{bad}:1:6: there is no element class 'Quue' (did you mean Queue?)"
    assert lines[1] == f"{bad}:2:21: expected an element, found '->'"
    assert "missing.click" in lines[2]
    assert lines[3] == "xiatb: 3 errors in 3 files"


def test_flatten_expands(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["click", "flatten", good]) == 0
    out = capsys.readouterr().out
    assert "h/q :: Queue(5);" in out
    assert "RatedSource@1 -> h/q;" in out


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("ascii", "    [0] ~> [0] Discard@3"),
        ("dot", '"h/q" -> "Discard@3" [style=dashed'),
        ("mermaid", "-.->"),
    ],
)
def test_graph_draws(good: str, form: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["click", "graph", "-f", form, good]) == 0
    assert expected in capsys.readouterr().out


def test_graph_as_json(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["click", "graph", "-o", "json", good]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [element["name"] for element in data["elements"]] == ["RatedSource@1", "h/q", "Discard@3"]
    assert data["connections"][1] == {
        "from": "h/q",
        "output": 0,
        "to": "Discard@3",
        "input": 0,
        "kind": "pull",
    }
    assert data["elements"][1]["where"].endswith("good.click:1:30")


def test_run_in_virtual_time(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["click", "run", good, "-t", "2s", "-r", "Discard@3.count"]) == 0
    assert capsys.readouterr().out == "Discard@3.count: 20\n"
    assert main(["click", "run", good, "-w", "RatedSource@1.active=false", "-r", "Discard@3.count"]) == 0
    assert capsys.readouterr().out == "Discard@3.count: 0\n"
    assert main(["click", "run", good, "-t", "soon"]) == 2
    assert main(["click", "run", good, "-r", "nothing.count"]) == 1


def test_example_topology_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = CONFIGS / "examples" / "xia_local_topology.click"
    assert main(["click", "run", str(example), "-t", "250ms", "-r", "ping.received"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ping.received: 3"


def test_elements_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["elements"]) == 0
    assert "XARPQuerier" in capsys.readouterr().out
    assert main(["elements", "queue"]) == 0
    assert capsys.readouterr().out.startswith("Queue([CAPACITY])\n")
    assert main(["elements", "-o", "json", "Queue"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "Queue"
    assert main(["elements", "Quue"]) == 2
    assert "did you mean Queue?" in capsys.readouterr().err
