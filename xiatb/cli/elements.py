"""`xiatb elements [NAME]`: what the Click elements do."""

from __future__ import annotations

import click

from xiatb.cli.output import output_option, print_json, print_table
from xiatb.click import docs, registry
from xiatb.errors import UsageError


@click.command("elements", short_help="List the Click elements, or describe one.")
@click.argument("name", required=False)
@output_option
def command(name: str | None, output: str) -> None:
    """List the Click elements, or describe the one called NAME: ports, arguments, handlers.

    Example: xiatb elements XARPQuerier
    """
    classes = registry.all_classes()
    if name is None:
        if output == "json":
            print_json([docs.data(cls) for cls in classes.values()])
        else:
            print_table(["element", "what it does"], [(n, docs.summary(cls)) for n, cls in classes.items()])
        return
    by_lower = {known.lower(): cls for known, cls in classes.items()}
    cls = by_lower.get(name.lower())
    if cls is None:
        raise UsageError(f"there is no element '{name}'{registry.suggestion(name, list(classes))}")
    if output == "json":
        print_json(docs.data(cls))
    else:
        click.echo(docs.text(cls), nl=False)
