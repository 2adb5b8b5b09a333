"""`xiatb up`: bring a lab up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from xiatb.cli.output import output_option, print_json
from xiatb.cli.starting import start_lab
from xiatb.cli.status import current_status, print_status
from xiatb.cli.topology import data_plane_option, read_plan, topology_options
from xiatb.lab.paths import LabPaths


@click.command(short_help="Bring up the lab of a topology file.")
@topology_options
@data_plane_option
@click.option(
    "--policy", type=click.Path(path_type=Path), metavar="FILE",
    help="Which hosts may send and receive which guests, instead of the file that the topology names.",
)  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table.")
@output_option
def command(
    file: Path | None,
    lab: str | None,
    seed: int | None,
    data_plane: str | None,
    policy: Path | None,
    quiet: bool,
    output: str,
    **_: Any,
) -> None:
    """Bring up the lab of a topology FILE and return when it is ready.

    Interrupted (Ctrl-C), it removes what it had made and ends with 130.

    Example: xiatb up topologies/minimal.yaml
    """
    begin = time.monotonic()
    plan = read_plan(file, lab, seed, data_plane, policy)
    start_lab(plan, quiet=quiet or output == "json")
    status = current_status(LabPaths(plan.lab))
    if output == "json":
        print_json(status)
    elif not quiet:
        print_status(status)
        click.echo(f"lab {plan.lab} is up ({time.monotonic() - begin:.1f} s)")
