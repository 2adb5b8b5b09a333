"""How exact links are: the token bucket's rate, and how late the delay line is."""

from __future__ import annotations

from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.bench.stage import stage
from xiatb.lab.linkbench import lateness, throughput

NAME = "links"
RATES = (10, 100, 1000)
DELAY_MS, FRAMES_PER_SECOND = 10, 8000
SHAPING_BAR = Bar(least=0.97, most=1.01)
LATENESS_BARS = {"p50_ms": Bar(most=0.1), "p99_ms": Bar(most=1.0)}


def measure(runs: int, seconds: float) -> list[Figure]:
    """Shaping over the set rate, then lateness over the set delay, on one link of a lab."""
    with stage() as scene:
        source, sink = scene.end("h1"), scene.end("r1")
        figures = []
        for mbit in RATES:
            scene.set_link("h1", rate=f"{mbit}mbit", queue="2M")
            shaping = Figure(NAME, f"shaping over {mbit} Mbit/s", SHAPING_BAR, unit="Mbit/s")
            for _ in range(runs):
                shaping.add(throughput(source, sink, seconds=2 * seconds) / 1e6, mbit)
            figures.append(shaping)
        backend = scene.set_link("h1", delay=f"{DELAY_MS}ms")
        late = {
            key: Figure(NAME, f"{backend} lateness at 8,000 frames/s, {key[:3]}", bar, unit="ms")
            for key, bar in LATENESS_BARS.items()
        }
        for _ in range(runs):
            delay = DELAY_MS / 1000
            each = lateness(source, sink, delay=delay, rate=FRAMES_PER_SECOND, seconds=2 * seconds)
            for key, figure in late.items():
                figure.add(each[key])
        return [*figures, *late.values()]
