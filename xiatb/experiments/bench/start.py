"""How long a short transfer takes on a fast, long path, over kernel TCP with the same congestion control."""

from __future__ import annotations

from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.bench.flows import long_link, run

NAME = "start"
ROUND_TRIP_MS, SIZE = 50, 10_000_000
BARS = {"cubic": Bar(most=1.1), "bbr": Bar(most=1.1)}


def measure(runs: int, seconds: float) -> list[Figure]:
    """10 MB from the first connect to the last byte, XIA and TCP by turns; `seconds` changes nothing."""
    figures = []
    with long_link(round_trip_ms=ROUND_TRIP_MS) as scene:
        for control, bar in BARS.items():
            figure = Figure(NAME, f"{control}, 10 MB, 50 ms, time over TCP's", bar, unit="s")
            for _ in range(runs):
                baseline = run(scene, "tcp", control, size=SIZE).seconds
                figure.add(run(scene, "xia", control, size=SIZE).seconds, baseline)
            figures.append(figure)
    return figures
