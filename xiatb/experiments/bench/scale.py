"""How large a lab may be: a square grid of routers, a host at each, in one AD a row.

Per run the lab comes up and converges, is left alone, is looked at, and goes down. Memory is the proportional
set size (proc(5), smaps_rollup: a page that n processes share counts 1/n for each); processor time is that of
every process that bears the lab's mark, from schedstat (ns on a CPU), and so of the supervisor, the fork
server, the shells and all.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.ownlab import own_lab
from xiatb.lab import process
from xiatb.lab.paths import LabPaths
from xiatb.lab.state import LabState, read_state

NAME = "scale"
SIDE, QUICK_SIDE = 10, 3
SETTLE, IDLE = 5.0, 20.0
"""Seconds that a lab is left alone, before and while its idling is measured, times `seconds`."""


@dataclass
class Figures:
    """What a run adds to."""

    up: Figure
    memory: Figure
    cores: Figure
    idle: Figure
    down: Figure

    def all(self) -> list[Figure]:
        """In the order of the table."""
        return [self.up, self.memory, self.cores, self.idle, self.down]


def grid(side: int) -> str:
    """A topology file of side x side routers and as many hosts; every row of routers is an AD."""
    nodes, links = [], []
    for row in range(side):
        for column in range(side):
            here = f"r{row}-{column}"
            nodes.append(f"  {here}: {{kind: router, ad: a{row}}}")
            nodes.append(f"  h{row}-{column}: {{kind: host}}")
            links.append(f"  - h{row}-{column} -- {here}")
            if column + 1 < side:
                links.append(f"  - {here} -- r{row}-{column + 1}")
            if row + 1 < side:
                links.append(f"  - {here} -- r{row + 1}-{column}")
    return "\n".join(["name: scale", "nodes:", *nodes, "links:", *links, ""])


def measure(runs: int, seconds: float) -> list[Figure]:
    """Labs of 200 nodes (of 18 when `seconds` is below 1, as with --quick), one after the other."""
    side = SIDE if seconds >= 1.0 else QUICK_SIDE
    size = f"{2 * side * side} nodes"
    figures = Figures(
        Figure(NAME, f"{size}, up to converged", Bar(most=40.0), unit="s"),
        Figure(NAME, f"{size}, memory of a router (PSS)", Bar(most=20.0), unit="MB"),
        Figure(NAME, f"{size}, CPU of a router until up", Bar(), unit="s"),
        Figure(NAME, f"{size}, idle, % of a core in all", Bar(most=15.0), unit="%"),
        Figure(NAME, f"{size}, down", Bar(), unit="s"),
    )
    for _ in range(runs):
        _run(figures, side, seconds)
    return figures.all()


def _run(figures: Figures, side: int, seconds: float) -> None:
    lab = f"scale{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory(prefix="xiatb-bench-") as directory:
        file = Path(directory) / "scale.yaml"
        file.write_text(grid(side))
        begin = time.monotonic()
        with own_lab(file, lab):
            figures.up.add(time.monotonic() - begin)
            state = read_state(LabPaths(lab))
            routers = [one.process.pid for name, one in state.nodes.items() if name[0] == "r" and one.process]
            figures.cores.add(sum(map(cpu_time, routers)) / len(routers))
            figures.memory.add(sum(map(pss, routers)) / len(routers) / 1e6)
            figures.idle.add(100 * idle_load(state, SETTLE * seconds, IDLE * seconds))
            begin = time.monotonic()
    figures.down.add(time.monotonic() - begin)


def idle_load(state: LabState, settle: float, window: float) -> float:
    """Cores that all processes of a lab keep busy together, over `window` seconds after `settle` seconds."""
    leave_alone = threading.Event()
    leave_alone.wait(settle)
    pids = [one.pid for one in process.marked(state.id)]
    begin, before = time.monotonic(), sum(map(cpu_time, pids))
    leave_alone.wait(window)
    return (sum(map(cpu_time, pids)) - before) / (time.monotonic() - begin)


def cpu_time(pid: int) -> float:
    """Seconds that the threads of a process have been on a CPU."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def pss(pid: int) -> int:
    """Proportional set size of a process, bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
