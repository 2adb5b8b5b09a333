"""`scripts/faults`: cells of the fault table with a real guest, or the table itself.

Without --lab it brings topologies/migration.yaml up, goes through all cells in that lab, and takes it down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from xiatb.errors import InterruptedByUserError, XiatbError
from xiatb.experiments.faults.runner import FaultRunner, Report
from xiatb.experiments.faults.table import PHASES, TABLE, page
from xiatb.experiments.ownlab import INTERRUPTIONS, own_lab
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.state import read_plan

TOPOLOGY = Path(__file__).resolve().parents[3] / "topologies" / "migration.yaml"


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; argparse ends the program when it is wrong."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description="Try what goes wrong in migrations.")
    parser.add_argument("cells", nargs="*", metavar="FAULT/PHASE", help="cells to go through, in this order")
    parser.add_argument("--lab", help="a lab that is up; else one is brought up for it")
    parser.add_argument("--name", default="faults", help="of the lab that is brought up (default: faults)")
    parser.add_argument("--for", type=float, default=1e9, dest="seconds", metavar="SECONDS",
                        help="begin no cell later than that; what is left is named")  # fmt: skip
    parser.add_argument("--locked", action="store_true",
                        help="post-copy: strike when QEMU stands still with its main lock held")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="add a line for each cell to this file")
    parser.add_argument("--table", action="store_true", help="print the table of docs/reliability.md")
    options = parser.parse_args(argv)
    for cell in options.cells:
        fault, _, phase = cell.partition("/")
        if fault not in TABLE or phase not in PHASES:
            parser.error(f"no cell {cell!r}; faults: {', '.join(TABLE)}; phases: {', '.join(PHASES)}")
    return options


def main(argv: list[str]) -> int:
    """0 when every cell is as the table says, 3 when not, 4 without root, 130 interrupted, 1 when something
    else failed."""
    options = arguments(argv)
    if options.table or not options.cells:
        sys.stdout.write(page())
        return 0
    if os.geteuid() != 0:
        sys.stderr.write("faults: needs root\nhint: sudo scripts/faults ...\n")
        return 4
    INTERRUPTIONS.arm()
    try:
        return 3 if _go_through(options) else 0
    except KeyboardInterrupt:  # the lab that was brought up is down by now
        sys.stderr.write("faults: interrupted\n")
        return InterruptedByUserError.exit_code
    except XiatbError as error:
        sys.stderr.write(f"faults: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
        return error.exit_code


def _go_through(options: argparse.Namespace) -> int:
    """All cells; how many were not as the table says. One that ruins the lab ends there, the next one begins
    in another lab, unless the lab was given."""
    bad, left = 0, list(options.cells)
    end = time.monotonic() + options.seconds
    while left and time.monotonic() < end:
        with lab(options.lab, options.name) as plan:
            runner = FaultRunner(plan, _mutter, locked=options.locked)
            while left and not runner.ruined and time.monotonic() < end:
                report = runner.run(*left.pop(0).split("/"))
                bad += bool(report.problems)
                tell(report, options.json)
        if runner.ruined and options.lab:
            raise XiatbError(f"{options.lab} is of no more use", hint=f"xiatb down {options.lab}")
    if left:
        _mutter(f"not begun: {' '.join(left)}")
    return bad


@contextlib.contextmanager
def lab(given: str | None, name: str) -> Iterator[Plan]:
    """The plan of the lab that is given, or of one called `name` that lives as long as the `with`."""
    if given is not None:
        yield read_plan(LabPaths(given))
        return
    with own_lab(TOPOLOGY, name) as plan:
        yield plan


def _mutter(words: str) -> None:
    sys.stderr.write(words + "\n")


def tell(report: Report, file: Path | None) -> None:
    """Print how a cell went, and add it to `file` as a line of JSON."""
    said = f"{report.code}: {report.message}" if report.code else report.message or "moved"
    where = ", ".join(report.runs_on) or "nowhere"
    verdict = "; ".join(report.problems) or "as the table says"
    end = f"exit {report.exit_code}, runs on {where} after {report.seconds} s; {said}"
    sys.stdout.write(
        f"{report.fault}/{report.phase}: {end if report.ended else 'not seen to end'}\n"
        f"  hint: {report.hint or '-'}\n  {verdict}\n"
    )
    if report.lock_held_s:
        sys.stdout.write(f"  QEMU stood still with its main lock held for {report.lock_held_s:g} s\n")
    sys.stdout.flush()
    if file is not None:
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(report.to_json()) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
