"""How evenly two streams with the same congestion control share a link; kernel TCP's pair beside it."""

from __future__ import annotations

from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.bench.flows import long_link, run

NAME = "fairness"
ROUND_TRIP_MS = 25
CONTROLS = ("cubic", "bbr")
BAR = Bar(least=0.95)
SECONDS = 20.0


def jain(shares: list[float]) -> float:
    """Jain's index: 1 for equal shares, 1/n when one has all."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def measure(runs: int, seconds: float) -> list[Figure]:
    """Jain's index of two streams over 20 s from their start; that of two TCP connections beside it."""
    figures = []
    with long_link(round_trip_ms=ROUND_TRIP_MS) as scene:
        for control in CONTROLS:
            own = Figure(NAME, f"{control}, two streams, Jain's index", BAR)
            tcp = Figure(NAME, f"{control}, two kernel TCP connections, Jain's index", Bar())
            for _ in range(runs):
                for kind, figure in (("tcp", tcp), ("xia", own)):
                    shares = run(scene, kind, control, flows=2, seconds=SECONDS * seconds).mbit
                    figure.add(jain(shares))
            figures += [own, tcp]
    return figures
