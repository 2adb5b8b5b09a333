"""`xiatb ping`: XCMP echo from a node."""

from __future__ import annotations

from typing import Any

import click

from xiatb.cli.labs import check_member, choose_lab, lab_option
from xiatb.cli.output import output_option, print_json
from xiatb.errors import UsageError
from xiatb.lab.client import ControlClient
from xiatb.lab.locate import address_of
from xiatb.lab.state import read_plan
from xiatb.lab.units import any_duration


def _seconds(_context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        return any_duration(value if not value.replace(".", "", 1).isdigit() else f"{value}s") / 1e9
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error


@click.command(short_help="Send XCMP echo requests from a node.")
@lab_option
@click.argument("node")
@click.argument("target", metavar="DAG|NAME")
@click.option("-c", "--count", type=click.IntRange(1, 1_000_000), default=4, show_default=True)
@click.option(
    "-i", "--interval", default="1s", show_default=True, callback=_seconds, help="Between requests."
)
@click.option("-W", "--timeout", default="1s", show_default=True, callback=_seconds, help="For each answer.")
@click.option(
    "-s", "--size", type=click.IntRange(0, 60000), default=56, show_default=True, help="Bytes of data."
)
@output_option
def command(node: str, target: str, lab: str | None, output: str, **options: Any) -> None:
    """Send XCMP echo requests from NODE to a node, guest, name or DAG.

    Ends with 1 when nothing came back.

    Example: xiatb ping h1 h2 -c 3
    """
    paths = choose_lab(lab)
    plan = read_plan(paths)
    if check_member(plan, node) == "guest":
        raise UsageError(f"{node} is a guest; ping it instead", hint=f"xiatb ping NODE {node}")
    dag = address_of(paths, plan, target)
    events, summary = [], {"sent": 0, "received": 0}
    if output == "text":
        click.echo(f"PING {target} ({dag}) from {node}")
    silence = options["interval"] + options["timeout"] + 5
    with ControlClient(paths.control(node)) as client:
        for event in client.stream("ping", timeout=silence, params={"dag": dag, **options}):
            if event["event"] == "result":
                summary = {key: value for key, value in event.items() if key != "event"}
                continue
            events.append({key: value for key, value in event.items() if key != "id"})
            if output == "text":
                click.echo(_line(event))
    if output == "json":
        print_json({"from": node, "to": dag, "answers": events, **summary})
    else:
        _print_summary(summary)
    raise click.exceptions.Exit(0 if summary["received"] else 1)


def _line(event: dict[str, Any]) -> str:
    what = event["event"]
    if what == "pong":
        return f"seq={event['seq']} time={event['rtt_ms']:.3f} ms"
    source = f" from {event['from']}" if event.get("from") else ""
    return f"seq={event.get('seq', '?')} {what.replace('_', ' ')}{source}"


def _print_summary(summary: dict[str, Any]) -> None:
    sent, received = summary["sent"], summary["received"]
    loss = 100 * (1 - received / sent) if sent else 0
    click.echo(f"{sent} sent, {received} received, {loss:g} % lost")
    if received:
        low, mean, high = (summary[f"rtt_{key}_ms"] for key in ("min", "avg", "max"))
        click.echo(f"rtt min/avg/max {low:.3f}/{mean:.3f}/{high:.3f} ms")
