"""`xiatb logs`: logs of a lab's processes."""

from __future__ import annotations

import subprocess

import click

from xiatb.cli.labs import choose_lab, lab_option
from xiatb.errors import LabStateError, UsageError
from xiatb.lab.source import did_you_mean
from xiatb.lab.state import read_plan


@click.command(short_help="Show the log of a node or of the supervisor.")
@lab_option
@click.argument("member", required=False, metavar="[NODE]")
@click.option("-n", "--lines", type=click.IntRange(1), default=20, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows, until Ctrl-C.")
def command(lab: str | None, member: str | None, lines: int, follow: bool) -> None:
    """Show the log of NODE's process, or, without NODE, that of the supervisor.

    Example: xiatb logs r1 -n 50
    """
    paths = choose_lab(lab)
    nodes = [node.name for node in read_plan(paths).nodes]
    if member is not None and member not in nodes:
        raise UsageError(f"no node named {member!r} in {paths.lab}", hint=did_you_mean(member, nodes))
    file = paths.node_log(member) if member else paths.supervisor_log
    if not file.exists():
        raise LabStateError(f"{file}: no log yet")
    argv = ["tail", "-n", str(lines), *(["-F"] if follow else []), str(file)]
    raise click.exceptions.Exit(subprocess.run(argv, check=False).returncode)
