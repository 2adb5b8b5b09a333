"""`xiatb link`: what links do to frames, seen and changed while the lab is up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from xiatb.cli.labs import choose_lab, lab_option
from xiatb.cli.output import output_option, print_json, print_table
from xiatb.cli.status import link_row
from xiatb.errors import UsageError
from xiatb.lab.client import LabClient
from xiatb.lab.linkops import changed, find_link, shown_link
from xiatb.lab.linkparams import PARAMETERS
from xiatb.lab.state import read_plan, read_state

_LONGEST = 60.0
"""seconds; a line that ends lets go of what is on the way first"""


@click.group(short_help="Show and change links while the lab is up.")
def command() -> None:
    """Show and change links while the lab is up: rate, delay, jitter, loss, cables.

    Example: xiatb link set h1 r1 --delay 20ms --loss 0.5% --rate 50mbit
    """


def _parameters(function: Callable[..., None]) -> Callable[..., None]:
    for name, one in reversed(PARAMETERS.items()):
        words = f"{one.help} {one.range[0].upper()}{one.range[1:]}."
        function = click.option(f"--{name}", metavar=one.metavar, help=words)(function)
    return function


@command.command("set")
@lab_option
@click.argument("a")
@click.argument("b")
@_parameters
@click.option("--from", "source", metavar="NODE", help="Only frames that this end sends.")
@click.option("--replace", is_flag=True, help="Clear what is not named; otherwise it stays.")
@output_option
def set_(
    a: str, b: str, lab: str | None, source: str | None, replace: bool, output: str, **options: str | None
) -> None:
    """Change what the link between A and B (NODE or NODE:PORT) does to frames.

    Example: xiatb link set h1 r1 --delay 20ms --loss 0.5% --rate 50mbit
    """
    values = {name: value for name, value in options.items() if value is not None}
    if not values and not replace:
        raise UsageError("nothing to set", hint="xiatb link set --help lists the parameters")
    paths = choose_lab(lab)
    link = find_link(read_plan(paths), a, b)
    changed(link, read_state(paths), values, source=source, clear=replace)
    request = {"a": a, "b": b, "set": values, "replace": replace, **({"from": source} if source else {})}
    with LabClient(paths.lab) as client:
        _print([client.request("link_set", timeout=_LONGEST, params=request)], output)


@command.command("show")
@lab_option
@click.argument("a", required=False)
@click.argument("b", required=False)
@output_option
def show(a: str | None, b: str | None, lab: str | None, output: str) -> None:
    """Show all links, those of node A, or the one between A and B.

    Example: xiatb link show r1
    """
    paths = choose_lab(lab)
    if a and b:
        find_link(read_plan(paths), a, b)
    ends = {key: value for key, value in (("a", a), ("b", b)) if value}
    with LabClient(paths.lab) as client:
        _print(client.request("link_show", params=ends)["links"], output)


def _switch(word: str, *, up: bool) -> None:
    act = "Plug in" if up else "Pull"

    @command.command(word, help=f"{act} the cable between A and B.\n\nExample: xiatb link {word} h1 r1")
    @lab_option
    @click.argument("a")
    @click.argument("b")
    @output_option
    def switch(a: str, b: str, lab: str | None, output: str) -> None:
        paths = choose_lab(lab)
        link = find_link(read_plan(paths), a, b)
        with LabClient(paths.lab) as client:
            client.request("link_state", a=a, b=b, up=up)
        _print([shown_link(link, read_state(paths))], output)


_switch("up", up=True)
_switch("down", up=False)


def _print(links: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        print_json({"links": links})
        return
    print_table(["link", "mtu", "impairment", "by", "state"], [link_row(link) for link in links])
    ways = [link[way] for link in links for way in ("forward", "backward") if way in link]
    rows = [_counts(way) for way in ways if way["counters"] or way["queue_dropped"] is not None]
    if rows:
        columns = ["frames", "lost", "doubled", "reordered", "overflowed", "latest"]
        print_table(["from", "to", "queue drops", *columns], rows)


def _counts(way: dict[str, Any]) -> list[object]:
    told = way["counters"] or {}
    names = ("taken", "lost", "duplicated", "reordered", "overflowed")
    latest = f"{told['latest_us'] / 1000:g}ms" if "latest_us" in told else None
    return [way["from"], way["to"], way["queue_dropped"], *(told.get(name) for name in names), latest]
