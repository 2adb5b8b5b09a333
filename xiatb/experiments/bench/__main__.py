"""`python -m xiatb.experiments.bench`: which benchmarks, how often, and where the results go."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from xiatb.errors import InterruptedByUserError, XiatbError
from xiatb.experiments.bench import (
    clickcost,
    clickengine,
    fairness,
    forwarding,
    links,
    loss,
    migration,
    scale,
    start,
    stream,
)
from xiatb.experiments.bench.figures import Figure, as_json, print_table
from xiatb.experiments.ownlab import INTERRUPTIONS

Measure = Callable[[int, float], list[Figure]]
BENCHMARKS: dict[str, Measure] = {
    module.NAME: module.measure
    for module in (forwarding, clickengine, clickcost, stream, links, loss, start, fairness, scale, migration)
} | migration.BY_PART
BY_NAME_ONLY = (migration.NAME, *migration.BY_PART)
"""take the better part of an hour, and need guests"""
SECONDS, QUICK_SECONDS = 1.0, 0.3


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; argparse ends the program when it is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the data path of xiatb.")
    known = f"of {', '.join(BENCHMARKS)} (default: all without {migration.NAME})"
    parser.add_argument("names", nargs="*", metavar="NAME", help=known)
    parser.add_argument("--runs", type=int, default=3, help="medians of so many runs (3; migration: >= 5)")
    parser.add_argument("--quick", action="store_true", help="one short run")
    parser.add_argument(
        "--json", type=Path, nargs="?", const=Path("-"), metavar="FILE",
        help="write the figures there, too; without FILE on standard output in place of the table",
    )  # fmt: skip
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if not 1 <= options.runs <= 99:
        parser.error("--runs: 1 to 99")
    return options


def main(argv: list[str]) -> int:
    """0 when every bar is met, 3 when not, 4 without root, 1 when a benchmark failed, 130 interrupted."""
    options = arguments(argv)
    if os.geteuid() != 0:
        sys.stderr.write("bench: needs root\nhint: sudo scripts/bench\n")
        return 4
    INTERRUPTIONS.arm()
    try:
        return _measure(options)
    except KeyboardInterrupt:  # what was made is removed by now
        sys.stderr.write("bench: interrupted\n")
        return InterruptedByUserError.exit_code


def _measure(options: argparse.Namespace) -> int:
    load = os.getloadavg()[0]
    runs, seconds = (1, QUICK_SECONDS) if options.quick else (options.runs, SECONDS)
    figures: list[Figure] = []
    failed = False
    for name in options.names or [name for name in BENCHMARKS if name not in BY_NAME_ONLY]:
        sys.stderr.write(f"bench: {name}\n")
        try:
            figures += BENCHMARKS[name](runs, seconds)
        except XiatbError as error:
            failed = True
            sys.stderr.write(f"bench: {name}: {error.message}\n")
    with INTERRUPTIONS.unbroken():
        _show(figures, options.json, runs, load)
    if failed:
        return 1
    return 0 if all(figure.met for figure in figures) else 3


def _show(figures: list[Figure], file: Path | None, runs: int, load: float) -> None:
    text = as_json(figures, runs=runs, load=load) + "\n" if file is not None else ""
    if file == Path("-"):
        sys.stdout.write(text)
        return
    # How many runs a row has is in its last column: `migration` makes more of them than were asked for.
    sys.stdout.write(f"medians of the runs; load before {load:.1f}, {os.cpu_count()} CPUs\n")
    print_table(figures)
    if file is not None:
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
