"""Packets a second of the eBPF engine over the kernel's own IPv4 forwarding, one router and three."""

from __future__ import annotations

import contextlib

from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.bench.line import Line
from xiatb.experiments.bench.sender import Sender, delivered

NAME = "forwarding"
SIZES = (100, 1500)
BARS = {1: Bar(least=1.1), 3: Bar(least=1.0)}


def rate(line: Line, frame: bytes, seconds: float) -> float:
    """Packets a second that reach B."""
    with contextlib.closing(Sender(line.netns(0), "eth0", frame)) as sender:
        return delivered(sender, line.arrived, seconds)


def measure(runs: int, seconds: float) -> list[Figure]:
    """Both protocols by turns, on the same interfaces."""
    figures = []
    for routers, bar in BARS.items():
        with Line(routers, "ebpf") as line:
            for size in SIZES:
                name = f"eBPF over IPv4, {routers} router{'s' * (routers > 1)}, {size} B"
                figure = Figure(NAME, name, bar, unit="packets/s")
                for _ in range(runs):
                    baseline = rate(line, line.ipv4_frame(size), seconds)
                    figure.add(rate(line, line.xip_frame(size), seconds), baseline)
                figures.append(figure)
    return figures
