"""`xiatb validate`: check a topology file."""

from __future__ import annotations

from pathlib import Path

import click

from xiatb.cli.output import output_option, print_json
from xiatb.cli.topology import file_options, read_plan
from xiatb.errors import InvalidFileError


@click.command(short_help="Report every error of a topology file.")
@file_options
@output_option
def command(file: Path | None, output: str) -> None:
    """Report every error of a topology FILE, as file:line:col with a hint; nothing is started.

    Ends with 2 when there is one.

    Example: xiatb validate topologies/migration.yaml
    """
    try:
        plan = read_plan(file, None, None)
    except InvalidFileError as error:
        if output == "json":
            print_json({"valid": False, "problems": error.problems or [error.message]})
            raise click.exceptions.Exit(2) from error
        raise
    counts = {
        "nodes": len(plan.nodes),
        "links": len(plan.links),
        "guests": len(plan.guests),
        "ads": len(plan.ads),
    }
    if output == "json":
        print_json({"valid": True, "lab": plan.lab, **counts})
    else:
        click.echo(f"{plan.lab}: valid; {', '.join(f'{count} {what}' for what, count in counts.items())}")
