"""`xiatb status`: what a lab looks like right now."""

from __future__ import annotations

from typing import Any

import click

from xiatb.cli.labs import choose_lab
from xiatb.cli.output import output_option, print_json, print_table, short_xid
from xiatb.errors import LabStateError
from xiatb.lab.client import LabClient
from xiatb.lab.paths import LabPaths
from xiatb.lab.status import lab_status


@click.command(short_help="Show nodes, links and guests of a lab.")
@click.argument("lab", required=False)
@click.option("-l", "--lab", "option", metavar="NAME", envvar="XIATB_LAB", help="The same as LAB.")
@output_option
def command(lab: str | None, option: str | None, output: str) -> None:
    """Show nodes, links and guests of LAB (default: the only one that is up).

    Ends with 1 when the lab is degraded or its supervisor is dead.

    Example: xiatb status minimal -o json
    """
    status = current_status(choose_lab(lab or option))
    if output == "json":
        print_json(status)
    else:
        print_status(status)
    if status["status"] in ("degraded", "dead"):
        raise click.exceptions.Exit(1)


def current_status(paths: LabPaths) -> dict[str, Any]:
    """From the supervisor, which knows about guests; without it, when it does not answer, from the files."""
    try:
        with LabClient(paths.lab) as client:
            return client.request("status", timeout=30)
    except LabStateError:
        return lab_status(paths)


def print_status(status: dict[str, Any]) -> None:
    """The tables of a status."""
    backend = status["shaping_backend"]
    click.echo(f"lab {status['lab']}: {status['status']} since {status['since']}, shaping {backend}")
    print_table(
        ["node", "kind", "ad", "state", "engine", "pid", "hid"],
        [
            [
                node["name"], node["kind"], node["ad"], node["state"], node.get("engine"), node["pid"],
                short_xid(node["hid"]),
            ]
            for node in status["nodes"]
        ],
    )  # fmt: skip
    _print_engines(status["nodes"])
    if status["links"]:
        print_table(
            ["link", "mtu", "impairment", "by", "state"], [link_row(one) for one in status["links"]]
        )
    if status["guests"]:
        print_table(
            ["guest", "on", "state", "hid"],
            [[one["name"], one["on"], one["state"], short_xid(one["hid"])] for one in status["guests"]],
        )
    dead = [one["what"] for one in status["processes"] if not one["alive"]]
    if dead:
        click.echo(f"dead: {', '.join(dead)}")


def _print_engines(nodes: list[dict[str, Any]]) -> None:
    """Why Click forwards where eBPF might: each reason once."""
    reasons: dict[str, list[str]] = {}
    for node in nodes:
        if node.get("engine") == "click" and node["data_plane"] != "click":
            reasons.setdefault(node["engine_why"], []).append(node["name"])
    for why, names in reasons.items():
        click.echo(f"click on {', '.join(names)}: {why}")


def link_row(link: dict[str, Any]) -> list[object]:
    """One row: both directions in one when they are the same."""
    ways = [
        " ".join(f"{name} {value}" for name, value in link.get(way, {}).get("set", {}).items()) or "-"
        for way in ("forward", "backward")
    ]
    both = ways[0] if ways[0] == ways[1] else f"> {ways[0]}; < {ways[1]}"
    return [link["name"], link["mtu"], both, link["backend"], link["state"]]
