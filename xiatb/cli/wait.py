"""`xiatb wait`: until a lab has come together."""

from __future__ import annotations

import time

import click

from xiatb.cli.labs import choose_lab, lab_option
from xiatb.cli.output import output_option, print_json
from xiatb.errors import UsageError
from xiatb.lab.convergence import CONDITIONS, asker, wait_for
from xiatb.lab.state import read_plan
from xiatb.lab.units import any_duration


@click.command(short_help="Wait until joined, converged, or guests are there.")
@lab_option
@click.option("--for", "condition", type=click.Choice(CONDITIONS), default="converged", show_default=True)
@click.option("--timeout", default="30s", show_default=True, metavar="DURATION")
@output_option
def command(lab: str | None, condition: str, timeout: str, output: str) -> None:
    """Wait until all hosts have joined, all routes are there, or all guests are attached.

    Ends with 124, naming what is missing, when that takes longer than the timeout.

    Example: xiatb wait --for converged --timeout 10s
    """
    paths = choose_lab(lab)
    try:
        seconds = any_duration(timeout) / 1e9
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from error
    took = wait_for(read_plan(paths), asker(paths), condition, timeout=seconds, pause=time.sleep)
    if output == "json":
        print_json({"lab": paths.lab, "condition": condition, "seconds": round(took, 3)})
    else:
        click.echo(f"{condition} ({took:.2f} s)")
