"""`xiatb names`: what a lab's name server and rendezvous service know."""

from __future__ import annotations

from typing import Any

import click

from xiatb.cli.labs import choose_lab, lab_option, require_root
from xiatb.cli.output import output_option, print_json, print_table
from xiatb.errors import LabStateError
from xiatb.lab.client import ask_node
from xiatb.lab.services import directory
from xiatb.lab.state import read_plan


@click.command(short_help="List names and rendezvous entries of the lab.")
@lab_option
@output_option
def command(lab: str | None, output: str) -> None:
    """List the names that the lab's name server knows, and where its rendezvous service sends packets.

    Example: xiatb names -o json
    """
    paths = choose_lab(lab)
    plan = read_plan(paths)
    require_root()
    told: dict[str, Any] = directory(plan, lambda node: ask_node(paths, node, "names"))
    if told["name_server"] is None:
        raise LabStateError(f"{plan.lab} has no name server", hint="it needs a router: see docs/services.md")
    if output == "json":
        print_json(told)
        return
    click.echo(f"name server on {told['name_server']}, rendezvous on {told['rendezvous']}")
    print_table(
        ["name", "origin", "ttl", "address"],
        [[row["name"], row["origin"], row["ttl"], row["dag"]] for row in told["names"]],
    )
    print_table(["host", "ttl", "now at"], [[row["hid"], row["ttl"], row["dag"]] for row in told["hosts"]])
