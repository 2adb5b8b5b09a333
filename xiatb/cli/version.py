"""`xiatb version`: versions of xiatb and of what it stands on."""

from __future__ import annotations

import click

from xiatb.cli.output import output_option, print_json
from xiatb.experiments.rundir import versions
from xiatb.lab.runner import HostRunner


@click.command(short_help="Print versions of xiatb and what it stands on.")
@output_option
def command(output: str) -> None:
    """Print the versions of xiatb and of what it stands on, "absent" for what is not installed.

    Example: xiatb version
    """
    found = versions(HostRunner())
    if output == "json":
        print_json(found)
    else:
        for name, version in found.items():
            click.echo(f"{name:12} {version}")
