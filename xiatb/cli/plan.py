"""`xiatb plan`: what `up` would make, without making it."""

from __future__ import annotations

from pathlib import Path

import click

from xiatb.cli.output import output_option, print_json, print_table, short_xid
from xiatb.cli.topology import read_plan, topology_options
from xiatb.lab.linkparams import shown
from xiatb.lab.plan import Impairment, Plan


@click.command(short_help="Print what `up` would make, and make nothing.")
@topology_options
@output_option
def command(file: Path | None, lab: str | None, seed: int | None, output: str) -> None:
    """Print the plan of a topology FILE: names, ports, MACs, XIDs, links. The same every time.

    Example: xiatb plan topologies/minimal.yaml -o json
    """
    plan = read_plan(file, lab, seed)
    if output == "json":
        print_json(plan.to_json())
        return
    click.echo(f"lab {plan.lab}, seed {plan.seed}, {len(plan.ads)} ADs, data plane {plan.data_plane}")
    print_table(["ad", "xid"], [[ad.name, ad.xid] for ad in plan.ads])
    print_table(
        ["node", "kind", "ad", "hid", "netns", "ports"],
        [
            [
                node.name,
                node.kind,
                node.ad_name,
                short_xid(node.hid),
                plan.netns(node.name),
                _ports(node.ports),
            ]
            for node in plan.nodes
        ],
    )
    _print_links(plan)
    _print_guests(plan)
    _print_baseline(plan)


def _ports(ports: tuple[object, ...]) -> str:
    return " ".join(f"{port.name}={port.mac}" for port in ports)  # type: ignore[attr-defined]


def _print_links(plan: Plan) -> None:
    rows = []
    for link in plan.links:
        forward, backward = _impairment(link.forward), _impairment(link.backward)
        rows.append([link.name, link.mtu, forward if forward == backward else f"> {forward}; < {backward}"])
    print_table(["link", "mtu", "impairment"], rows)


def _print_guests(plan: Plan) -> None:
    if plan.guests:
        print_table(
            ["guest", "on", "memory", "mac", "tap", "hid", "services"],
            [
                [
                    guest.name, guest.on, f"{guest.memory_mib}M", guest.mac, guest.tap, short_xid(guest.hid),
                    " ".join(service.name for service in guest.services),
                ]
                for guest in plan.guests
            ],
        )  # fmt: skip


def _print_baseline(plan: Plan) -> None:
    if plan.baseline is None:
        return
    nodes = [
        [node.name, node.address, " ".join("=".join(port) for port in node.ports),
         " ".join(f"{network}>{hop}" for network, hop in node.routes)]
        for node in plan.baseline.nodes
    ]  # fmt: skip
    print_table(["ip of", "address", "links", "routes"], nodes)
    guests = [[one.name, " ".join("=".join(pair) for pair in one.addresses)] for one in plan.baseline.guests]
    if guests:
        print_table(["ip of guest", "address in each ad"], guests)


def _impairment(one: Impairment) -> str:
    return " ".join(f"{name} {value}" for name, value in shown(one).items()) or "-"
