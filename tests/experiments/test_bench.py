"""scripts/bench: how figures are judged, shown and written; and one quick benchmark for real."""

from __future__ import annotations

import ctypes
import io
import json
import subprocess
from pathlib import Path

import pytest

from tests.lab.labs import needs_root
from xiatb.experiments.bench.__main__ import BENCHMARKS, arguments
from xiatb.experiments.bench.clickcost import CASES, WAYS
from xiatb.experiments.bench.figures import COLUMNS, Bar, Figure, as_json, print_table, rows
from xiatb.experiments.bench.line import FAR, Line
from xiatb.experiments.bench.sender import Message
from xiatb.experiments.bench.stream import room
from xiatb.experiments.bench.streamapp import WARM_UP, Meter
from xiatb.lab.paths import NETNS_ROOT
from xiatb.wire import xip

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "bench"


def figure(*pairs: tuple[float, float | None], bar: Bar) -> Figure:
    made = Figure("forwarding", "eBPF", bar, unit="packets/s")
    for measured, baseline in pairs:
        made.add(measured, baseline)
    return made


FAST = figure((1200.0, 1000.0), (900.0, 1000.0), (1300.0, 1000.0), bar=Bar(least=1.1))
LATE = figure((0.2, None), bar=Bar(most=0.1))


@pytest.mark.parametrize(
    ("bar", "value", "met"),
    [
        (Bar(least=1.1), 1.1, True),
        (Bar(least=1.1), 1.09, False),
        (Bar(most=0.1), 0.1, True),
        (Bar(most=0.1), 0.11, False),
        (Bar(0.97, 1.01), 1.02, False),
        (Bar(0.97, 1.01), 0.96, False),
        (Bar(0.97, 1.01), 1.0, True),
        (Bar(), 7.0, True),
    ],
)
def test_bars_include_their_bounds(bar: Bar, value: float, met: bool) -> None:
    assert bar.met_by(value) is met


def test_the_median_of_the_runs_ratios_is_held_against_the_bar() -> None:
    assert FAST.values == [1.2, 0.9, 1.3]
    assert (FAST.value, FAST.met) == (1.2, True)
    assert (LATE.value, LATE.met, LATE.baseline) == (0.2, False, [])


def test_the_table_names_bar_and_verdict() -> None:
    assert rows([FAST, LATE]) == [
        ["forwarding: eBPF", "1,200 packets/s", "1,000 packets/s", "1.200", ">= 1.1", "yes", "3"],
        ["forwarding: eBPF", "0.2 packets/s", "-", "0.200", "<= 0.1", "NO", "1"],
    ]
    assert [str(bar) for bar in (Bar(0.97, 1.01), Bar())] == ["0.97 to 1.01", "-"]


def test_a_pipe_gets_plain_columns() -> None:
    out = io.StringIO()
    print_table([FAST, LATE], out)
    lines = out.getvalue().splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert {line.index(">= 1.1") for line in lines[1:2]} == {lines[0].index("bar")}
    assert lines[2].endswith("NO   1")


def test_json_holds_every_run() -> None:
    told = json.loads(as_json([FAST, LATE], runs=3, load=0.123))
    assert (told["runs"], told["load_before"]) == (3, 0.12)
    assert told["figures"][0] == {
        "benchmark": "forwarding", "name": "eBPF", "bar": {"least": 1.1, "most": None},
        "values": [1.2, 0.9, 1.3], "measured": [1200.0, 900.0, 1300.0], "baseline": [1000.0] * 3,
        "unit": "packets/s", "note": "", "runs": 3, "value": 1.2, "met": True,
    }  # fmt: skip
    assert told["figures"][1]["met"] is False


@pytest.mark.parametrize("argv", [["walking"], ["--runs", "0"], ["forwarding", "--runs", "100"]])
def test_nonsense_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(argv)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_names_select() -> None:
    names = ["forwarding", "click", "clickcost", "stream", "links", "loss", "start", "fairness", "scale"]
    assert [name for name in BENCHMARKS if not name.startswith("migration")] == names
    assert arguments(["links", "--quick"]).names == ["links"]


@pytest.mark.parametrize("size", [100, 1500])
def test_frames_have_the_size_that_is_said(size: int) -> None:
    line = Line(1, "ebpf")  # nothing is made before `with`
    xia, ip = line.xip_frame(size), line.ipv4_frame(size)
    assert len(xia) == len(ip) == size + 14
    assert xip.parse(xia, 14).dst().nodes[0] == FAR
    total = sum(int.from_bytes(ip[place : place + 2], "big") for place in range(14, 34, 2))
    assert (total >> 16) + (total & 0xFFFF) == 0xFFFF  # RFC 1071
    assert int.from_bytes(ip[16:18], "big") == size


def test_what_headers_leave() -> None:
    """Addresses of three nodes each: 8 + 6 * 28 bytes of XIP, 28 of the stream."""
    assert room(100, 1500, 6 * 28) == pytest.approx(100 * (1500 - 204) / 1514)


def test_a_meter_leaves_the_warm_up_out() -> None:
    meter = Meter()
    assert meter.rate == 0.0
    for now, size in ((5.0, 999), (5.1, 999), (5.0 + WARM_UP, 999), (6.5, 1000), (7.5, 3000)):
        meter.add(size, now)
    assert meter.rate == pytest.approx(4000 * 8 / 2.0)


def test_the_cost_of_the_graph_is_measured(tmp_path: Path) -> None:
    figures = BENCHMARKS["clickcost"](1, 0.02)
    assert [one.name for one in figures] == [f"{how}: {case}" for case in CASES for how in WAYS]
    assert all(one.value > 0 and one.met for one in figures)


@needs_root
@pytest.mark.netns
@pytest.mark.alone
def test_a_quick_run_prints_and_leaves_nothing(tmp_path: Path) -> None:
    def ours() -> set[str]:
        return {path.name for path in NETNS_ROOT.glob("xtb*")}

    before = ours()
    file = tmp_path / "bench.json"
    done = subprocess.run(
        [SCRIPT, "--quick", "forwarding", "--json", file],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr  # the bars are for a quiet machine
    told = json.loads(file.read_text())["figures"]
    assert len(told) == 4
    assert all(one["measured"][0] > 1000 and one["baseline"][0] > 1000 for one in told)
    assert "3 routers, 1500 B" in done.stdout
    assert not ours() - before


def test_the_generator_knows_the_kernels_structure() -> None:
    """sendmmsg(2) on 64-bit Linux: 56 bytes of msghdr, the length, padding. A wrong size sends one a call."""
    assert ctypes.sizeof(Message) == 64
