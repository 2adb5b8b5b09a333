"""`scripts/faults`: cells of the fault table with a real guest, or the table itself.

Without --lab it brings topologies/migration.yaml up under the name `faults` and takes it down at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.experiments.faults.runner import FaultRunner, Report
from xiatb.experiments.faults.table import PHASES, TABLE, page
from xiatb.lab import launch
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.state import read_plan

TOPOLOGY = Path(__file__).resolve().parents[3] / "topologies" / "migration.yaml"
_NAME = "faults"


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; argparse ends the program when it is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Try what goes wrong in migrations.")
    parser.add_argument("cells", nargs="*", metavar="FAULT/PHASE", help="cells to go through, in this order")
    parser.add_argument("--lab", help="a lab that is up; else one is brought up for it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add a line for each cell to this file")
    parser.add_argument("--table", action="store_true", help="print the table of docs/reliability.md")
    options = parser.parse_args(argv)
    for cell in options.cells:
        fault, _, phase = cell.partition("/")
        if fault not in TABLE or phase not in PHASES:
            parser.error(f"no cell {cell!r}; faults: {', '.join(TABLE)}; phases: {', '.join(PHASES)}")
    return options


@contextlib.contextmanager
def lab(name: str | None) -> Iterator[Plan]:
    """The plan of the named lab, or of one that lives as long as the `with`."""
    if name is not None:
        yield read_plan(LabPaths(name))
        return
    plan = launch.bring_up(TOPOLOGY, lab=_NAME)
    try:
        yield plan
    finally:
        launch.take_down(_NAME)


def main(argv: list[str]) -> int:
    """0 when every cell is as the table says, 3 when not, 4 without root, 1 when something else failed."""
    options = arguments(argv)
    if options.table or not options.cells:
        sys.stdout.write(page())
        return 0
    if os.geteuid() != 0:
        sys.stderr.write("faults: needs root\nhint: sudo scripts/faults ...\n")
        return 4
    bad = 0
    try:
        with lab(options.lab) as plan:
            runner = FaultRunner(plan, _mutter)
            for cell in options.cells:
                report = runner.run(*cell.split("/"))
                bad += bool(report.problems)
                _tell(report, options.json)
    except XiatbError as error:
        sys.stderr.write(f"faults: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
        return error.exit_code
    return 3 if bad else 0


def _mutter(words: str) -> None:
    sys.stderr.write(words + "\n")


def _tell(report: Report, file: Path | None) -> None:
    said = f"{report.code}: {report.message}" if report.code else report.message or "moved"
    where = ", ".join(report.runs_on) or "nowhere"
    verdict = "; ".join(report.problems) or "as the table says"
    sys.stdout.write(
        f"{report.fault}/{report.phase}: exit {report.exit_code}, runs on {where} after {report.seconds} s; "
        f"{said}\n"
        f"  hint: {report.hint or '-'}\n  {verdict}\n"
    )
    sys.stdout.flush()
    if file is not None:
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(report.to_json()) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
