"""`xiatb list`: the labs on this machine."""

from __future__ import annotations

import click

from xiatb.cli.output import output_option, print_json, print_table
from xiatb.errors import XiatbError
from xiatb.lab.paths import LabPaths, lab_names
from xiatb.lab.state import read_plan, read_state


@click.command(short_help="List the labs on this machine.")
@output_option
def command(output: str) -> None:
    """List the labs that are up (or were not taken down) on this machine.

    Example: xiatb list -o json
    """
    labs = [_describe(name) for name in lab_names()]
    if output == "json":
        print_json(labs)
    elif labs:
        columns = ["lab", "status", "nodes", "guests", "since", "topology"]
        print_table(columns, [[lab[column] for column in columns] for lab in labs])


def _describe(name: str) -> dict[str, object]:
    empty = dict.fromkeys(("nodes", "guests", "since", "topology"))
    try:
        state, plan = read_state(LabPaths(name)), read_plan(LabPaths(name))
    except XiatbError as error:
        return {"lab": name, "status": "damaged", **empty, "reason": error.message}
    return {
        "lab": name,
        "status": state.status if state.supervisor.alive() else "dead",
        "nodes": len(plan.nodes),
        "guests": len(plan.guests),
        "since": state.since,
        "topology": state.topology,
    }
