"""What benchmarks give: figures with the bars they are held against, as a table and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

COLUMNS = ("figure", "measured", "baseline", "value", "bar", "met", "runs")


@dataclass(frozen=True)
class Bar:
    """The range that a value must lie in; None is no bound."""

    least: float | None = None
    most: float | None = None

    def met_by(self, value: float) -> bool:
        """Whether the value lies in the range, bounds included."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.least is not None:
            return f">= {self.least:g}"
        return "-" if self.most is None else f"<= {self.most:g}"


@dataclass
class Figure:
    """One figure: the runs' values, and what they were made of."""

    benchmark: str
    name: str
    bar: Bar
    values: list[float] = field(default_factory=list)
    """one a run: measured over baseline, or the measured value itself where there is no baseline"""
    measured: list[float] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    unit: str = ""
    """of `measured` and `baseline`"""
    note: str = ""
    """why there are no values"""

    def add(self, measured: float, baseline: float | None = None) -> None:
        """Another run's result; without a baseline the value is `measured` itself."""
        self.measured.append(measured)
        if baseline is not None:
            self.baseline.append(baseline)
        self.values.append(measured if baseline is None else measured / baseline)

    @property
    def value(self) -> float:
        """The median of the runs, NaN when there are none."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def met(self) -> bool:
        """Whether the median meets the bar; what was not measured meets none."""
        return self.bar == Bar() or self.bar.met_by(self.value)


def as_json(figures: Sequence[Figure], *, runs: int, load: float) -> str:
    """The JSON text: {"runs","load_before","cpus","kernel","figures":[...]}. `runs`, at the top: how many
    were asked for; in a figure: how many it is the median of."""
    return json.dumps(
        {
            "runs": runs,
            "load_before": round(load, 2),
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "figures": [_one(figure) for figure in figures],
        },
        indent=2,
    )


def _one(figure: Figure) -> dict[str, Any]:
    value = round(figure.value, 4) if figure.values else None
    return {**asdict(figure), "runs": len(figure.values), "value": value, "met": figure.met}


def rows(figures: Sequence[Figure]) -> list[list[str]]:
    """Cells of the table, one row a figure, in the order of COLUMNS."""
    return [
        [
            f"{figure.benchmark}: {figure.name}",
            _amount(figure.measured, figure.unit),
            _amount(figure.baseline, figure.unit),
            f"{figure.value:.3f}" if figure.values else "not measured",
            str(figure.bar),
            _verdict(figure),
            str(len(figure.values)),
        ]
        for figure in figures
    ]


def _verdict(figure: Figure) -> str:
    if figure.bar == Bar():
        return "-"
    return "yes" if figure.met else "NO"


def _amount(values: Sequence[float], unit: str) -> str:
    if not values:
        return "-"
    middle = statistics.median(values)
    return f"{middle:,.0f} {unit}" if middle >= 1000 else f"{middle:.4g} {unit}".rstrip()


def print_table(figures: Sequence[Figure], out: TextIO = sys.stdout) -> None:
    """A framed table on a terminal, plain columns elsewhere; below it why rows have no value."""
    _table(figures, out)
    for figure in figures:
        if figure.note:
            out.write(f"{figure.benchmark}: {figure.name}: {figure.note}\n")


def _table(figures: Sequence[Figure], out: TextIO) -> None:
    cells = rows(figures)
    if out.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*COLUMNS)
        for row in cells:
            table.add_row(*row, style="bold red" if row[5] == "NO" else "")
        Console(file=out).print(table)
        return
    widths = [max(map(len, column)) for column in zip(COLUMNS, *cells, strict=True)]
    for row in [list(COLUMNS), *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write(line.rstrip() + "\n")
