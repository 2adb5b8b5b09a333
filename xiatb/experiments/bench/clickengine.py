"""Packets a second of the Click engine over a bare recv_into and send loop in Python."""

from __future__ import annotations

from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.bench.forwarding import SIZES, rate
from xiatb.experiments.bench.line import lines

NAME = "click"


def measure(runs: int, seconds: float) -> list[Figure]:
    """Engine and bare loop by turns, in lines of their own, on the core that the generator leaves free."""
    figures = []
    with lines((1, "click"), (1, "bare")) as (engine, bare):
        for size in SIZES:
            figure = Figure(NAME, f"Click over a bare loop, {size} B", Bar(least=0.6), unit="packets/s")
            for _ in range(runs):
                baseline = rate(bare, bare.xip_frame(size), seconds)
                figure.add(rate(engine, engine.xip_frame(size), seconds), baseline)
            figures.append(figure)
    return figures
