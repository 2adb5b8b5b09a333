"""Goodput over a link that loses frames at random, over kernel TCP with the same congestion control."""

from __future__ import annotations

from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.bench.flows import ROOM, long_link, run

NAME = "loss"
ROUND_TRIP_MS, LOSS = 25, "1%"
BARS = {"bbr": Bar(least=1.0), "cubic": Bar(least=0.95)}
FLOWS = {"bbr": 1, "cubic": 4}
"""CUBIC's windows are so small here that four at once do not meet: more losses to take the mean of"""
WARM, SECONDS = 2.0, 6.0


def measure(runs: int, seconds: float) -> list[Figure]:
    """XIA and TCP by turns; for BBR, which fills the link, also of what headers leave to each."""
    figures = []
    with long_link(round_trip_ms=ROUND_TRIP_MS, loss=LOSS) as scene:
        for control, bar in BARS.items():
            flows = FLOWS[control]
            raw = Figure(NAME, f"{control} over TCP's, 25 ms, 1 % loss", bar, unit="Mbit/s")
            shares = Figure(NAME, f"{control}, of what headers leave, over TCP's", Bar(), unit="of the room")
            for _ in range(runs):
                rates = {
                    kind: sum(
                        run(scene, kind, control, flows=flows, warm=WARM, seconds=SECONDS * seconds).mbit
                    )
                    for kind in ("tcp", "xia")
                }
                raw.add(rates["xia"], rates["tcp"])
                shares.add(rates["xia"] / ROOM["xia"], rates["tcp"] / ROOM["tcp"])
            figures += [raw, shares] if control == "bbr" else [raw]
    return figures
