"""The timeline picture of migrations: answers per 10 ms and latency, with marks for what happened.

One column a migration. Top: answers that arrived per 10 ms. Middle: latency of each answered probe.
Bottom: the same latency around the switchover. Marks: request, passes, STOP, RESUME, first answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xiatb.experiments.probelog import ProbeLog, Window

BIN_NS = 10_000_000
_ZOOM_BEFORE_S = 0.25
_ZOOM_AFTER_S = 0.75
_COLOURS = {
    "request": "tab:gray",
    "pass": "tab:olive",
    "STOP": "tab:red",
    "RESUME": "tab:green",
    "first answer": "tab:blue",
}


@dataclass(frozen=True)
class Mark:
    """A vertical line: what happened (`request`, `pass`, `STOP`, `RESUME`, `first answer`) and when."""

    kind: str
    at_ns: int
    label: str = ""


@dataclass
class Span:
    """One migration in the picture: its window, its marks and its title."""

    title: str
    window: Window
    marks: list[Mark] = field(default_factory=list)

    def instant(self, kind: str) -> int | None:
        """The stamp of the first mark of `kind`."""
        return next((mark.at_ns for mark in self.marks if mark.kind == kind), None)


def answers_per_bin(log: ProbeLog, window: Window) -> list[int]:
    """How many answers arrived in each bin of BIN_NS nanoseconds from the window's start on."""
    bins = [0] * max(1, -(-(window.end_ns - window.start_ns) // BIN_NS))
    for back in log.answered:
        if window.start_ns <= back < window.end_ns:
            bins[(back - window.start_ns) // BIN_NS] += 1
    return bins


def _latencies(log: ProbeLog, window: Window) -> tuple[list[float], list[float]]:
    """Send times in seconds from the window's start, and latencies in ms, of answered requests."""
    times: list[float] = []
    values: list[float] = []
    for out, back in zip(log.sent, log.answered, strict=True):
        if back and window.start_ns <= out < window.end_ns:
            times.append((out - window.start_ns) / 1e9)
            values.append((back - out) / 1e6)
    return times, values


def _draw_marks(axis: Any, span: Span, *, legend: bool) -> None:
    seen: set[str] = set()
    for mark in span.marks:
        label = None if mark.kind in seen else mark.kind
        seen.add(mark.kind)
        style = ":" if mark.kind == "pass" else "-"
        axis.axvline(
            (mark.at_ns - span.window.start_ns) / 1e9,
            color=_COLOURS.get(mark.kind, "black"),
            linestyle=style,
            linewidth=1.0,
            label=label,
        )
    if legend:
        axis.legend(loc="lower left", fontsize=7, ncols=3)


def _draw_column(column: list[Any], log: ProbeLog, span: Span) -> None:
    answers, latency, zoom = column
    bins = answers_per_bin(log, span.window)
    answers.step([n * BIN_NS / 1e9 for n in range(len(bins))], bins, where="post", linewidth=0.7)
    answers.set_title(span.title, fontsize=10)
    answers.set_ylabel("answers / 10 ms")
    times, values = _latencies(log, span.window)
    for axis in (latency, zoom):
        axis.plot(times, values, ".", markersize=1.5)
        axis.set_yscale("log")
        axis.set_ylabel("latency [ms]")
    stop = span.instant("STOP")
    if stop is not None:
        centre = (stop - span.window.start_ns) / 1e9
        zoom.set_xlim(centre - _ZOOM_BEFORE_S, centre + _ZOOM_AFTER_S)
    zoom.set_xlabel("time since start of window [s] (around the switchover)")
    latency.set_xlabel("time since start of window [s]")
    for axis in column:
        _draw_marks(axis, span, legend=axis is zoom)


def draw(log: ProbeLog, spans: list[Span], path: Path) -> None:
    """Draw the picture to `path` (PNG or any suffix that matplotlib writes)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        3, len(spans), figsize=(6.5 * len(spans), 9), squeeze=False, constrained_layout=True
    )
    try:
        for number, span in enumerate(spans):
            _draw_column([axes[row][number] for row in range(3)], log, span)
        figure.savefig(path, dpi=110)
    finally:
        pyplot.close(figure)
