"""The migration benchmark: its labs can be planned, its rows are complete, what fails is told."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from xiatb.errors import XiatbError
from xiatb.experiments.bench import migration
from xiatb.experiments.bench.__main__ import BENCHMARKS, BY_NAME_ONLY, arguments
from xiatb.experiments.bench.figures import Bar, Figure, as_json, print_table
from xiatb.experiments.bench.migrationlab import Ground, Shape
from xiatb.lab.load import load
from xiatb.lab.planner import make_plan


@pytest.mark.parametrize("shape", sorted({one[0] for one in migration.PARTS.values()}, key=str), ids=str)
def test_every_lab_can_be_planned(tmp_path: Path, shape: Shape) -> None:
    file = tmp_path / "bench.yaml"
    file.write_text(shape.text())
    plan = make_plan(load(file), lab="b1")
    assert {"echo.vm1.b1.xia", "responder.vm1.b1.xia"} <= set(plan.names)
    ads = {plan.node(name).ad for name in ("hv1", "hv2")}
    assert len(ads) == (1 if shape.intra else 2)


def test_every_row_of_the_issue_has_its_bar() -> None:
    bars = {name: bar for _, names, _ in migration.PARTS.values() for name, bar in names}
    wanted = [bar for bar in bars.values() if bar != Bar()]
    assert sorted(bar.most or bar.least or 0 for bar in wanted) == sorted(
        [250, 150, 40, 1.15, 1.05, 1.2, 1.2, 1.05, 1.03, 100, 100, 15]
    )


def test_a_part_that_fails_leaves_rows_that_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(place: Ground, runs: int, quick: bool) -> list[Figure]:
        raise XiatbError("the guest did not move")

    figures = migration._rows(None, migration.INTRA, broken, 1, True)  # type: ignore[arg-type]
    assert [figure.note for figure in figures] == ["not measured: the guest did not move"] * 2
    assert [figure.met for figure in figures] == [False, True], "a bar that is not measured is not met"
    out = io.StringIO()
    print_table(figures, out)
    assert "not measured: the guest did not move" in out.getvalue()
    told = json.loads(as_json(figures, runs=1, load=0.0))["figures"][0]
    assert (told["value"], told["met"]) == (None, False)
    assert math.isnan(figures[0].value)


def test_it_runs_only_when_it_is_named() -> None:
    assert {"migration", "migration:gap", "migration:tcp9000"} <= set(BY_NAME_ONLY) <= set(BENCHMARKS)
    assert len(BY_NAME_ONLY) == 1 + len(migration.PARTS)
    assert arguments(["migration", "--quick"]).names == ["migration"]
    assert arguments(["migration", "--json"]).json == Path("-"), "JSON on standard output"
    assert arguments(["migration", "--json", "there"]).json == Path("there")


def test_errors_of_predictions_are_relative() -> None:
    assert migration._off(9.0, 10_000) == pytest.approx(10.0)
