"""`xiatb inspect`: everything about one node."""

from __future__ import annotations

from typing import Any

import click

from xiatb.cli.labs import check_member, choose_lab, lab_option, require_root
from xiatb.cli.output import output_option, print_json, print_table
from xiatb.errors import UsageError
from xiatb.lab import netlink
from xiatb.lab.client import ask_node
from xiatb.lab.paths import NETNS_ROOT
from xiatb.lab.state import read_plan, read_state


@click.command(short_help="Show one node: address, ports, routes, SIDs.")
@lab_option
@click.argument("node")
@output_option
def command(lab: str | None, node: str, output: str) -> None:
    """Show NODE's address, what forwards, ports with counters, routes and bound SIDs.

    With -o json its statistics and neighbours, too.

    Example: xiatb inspect r1
    """
    paths = choose_lab(lab)
    plan = read_plan(paths)
    if check_member(plan, node) == "guest":
        raise UsageError(f"{node} is a guest", hint="xiatb status shows guests")
    if plan.node(node).kind == "ip_router":
        raise UsageError(f"{node} knows IP alone", hint=f"xiatb exec {node} -- ip address; ... ip route")
    require_root()
    told: dict[str, Any] = {op: ask_node(paths, node, op) for op in ("status", "routes", "neighbours")}
    told["interfaces"] = netlink.counters(NETNS_ROOT / read_state(paths).nodes[node].netns)
    if output == "json":
        print_json(told)
        return
    status = told["status"]
    ports = {port["ifname"]: port for port in status["ports"]}
    click.echo(f"{node} ({status['kind']}): {status['hid']}\n  at {status['dag'] or 'nowhere: not joined'}")
    _print_engine(status)
    print_table(
        ["port", "state", "mtu", "mac", "engine", "rx packets", "tx packets", "tx dropped"],
        [
            [
                name,
                one["state"],
                one["mtu"],
                one["mac"],
                ports[name]["engine"] if name in ports else None,
                one["rx_packets"],
                one["tx_packets"],
                one["tx_dropped"],
            ]
            for name, one in told["interfaces"].items()
            if name != "lo"
        ],
    )
    print_table(
        ["to", "port", "next hop"],
        [
            [f"{kind} default" if route["xid"] == "-" else route["xid"], route["port"], route["nexthop"]]
            for kind, routes in told["routes"].items()
            for route in routes
        ],
    )
    for sid in status["sids"]:
        click.echo(f"bound: {sid}")


def _print_engine(status: dict[str, Any]) -> None:
    """What forwards, why it is not eBPF, and the ports that are exceptions."""
    asked, engine, why = status["data_plane"], status["engine"], status["engine_why"]
    click.echo(f"  forwarding by {engine} (data_plane {asked})" + (f": {why}" if why else ""))
    for port in status["ports"]:
        if port["engine"] != engine:
            click.echo(f"  {port['ifname']} by {port['engine']}: {port['engine_why']}")
    if status["batch_io"] != "c":
        click.echo(f"  one system call a frame: {status['batch_io_why']}")
    if status["routes_left_out"]:
        click.echo(f"  {status['routes_left_out']} routes do not fit the eBPF map: click serves them")
