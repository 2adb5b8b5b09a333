"""The IP baseline made real in the nodes' kernels: addresses, forwarding, static routes, guests' /32s."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xiatb.lab.baseline import GATEWAY, Baseline, IpNode
from xiatb.lab.namespaces import inside
from xiatb.lab.netlink import index_of, routes
from xiatb.lab.paths import NETNS_ROOT
from xiatb.lab.plan import GuestPlan, NodePlan, Plan
from xiatb.node.iproute import add_address, delete_route, set_route

_PERMANENT = 0x80
"""NUD_PERMANENT of <linux/neighbour.h>."""


def configure(netns: Path, node: IpNode, taps: Iterable[tuple[str, str, str]]) -> None:
    """Give a namespace its addresses and routes; `taps` are (interface, guest's MAC, guest's address here).

    The interfaces are up. Raises LinkError, NetlinkError.
    """
    with routes(netns) as socket_:
        for switch, value in _switches(node):
            Path("/proc/sys/net/ipv4", switch).write_text(value)
        if node.address:
            add_address("lo", f"{node.address}/32")
        for name, address in node.ports:
            add_address(name, address)
        for name, mac, address in taps:
            add_address(name, f"{GATEWAY}/32")
            index = index_of(socket_, name)
            socket_.neigh("add", dst=address, lladdr=mac, ifindex=index, state=_PERMANENT)
        for network, hop in node.routes:
            set_route(network, via=hop, source=node.address)


def _switches(node: IpNode) -> list[tuple[str, str]]:
    """Forwarding, and no filter against replies that come another way (a guest that has just moved)."""
    own = [name for name, _ in node.ports]
    found = [(f"conf/{scope}/rp_filter", "0") for scope in ("all", "default", *own)]
    found += [(f"conf/{scope}/send_redirects", "0") for scope in ("all", "default", *own)]
    return [*found, ("ip_forward", "1" if node.gateway else "0")]


def taps_of(plan: Plan, baseline: Baseline, node: NodePlan) -> list[tuple[str, str, str]]:
    """What `configure` wants of a node's taps."""
    guests = {guest.name: guest for guest in plan.guests}
    return [
        (port.name, guests[port.guest].mac, baseline.address(port.guest, node.name))
        for port in node.ports
        if port.guest is not None
    ]


def place_guest(plan: Plan, guest: GuestPlan, hypervisor: str) -> None:
    """Let all gateways of the hypervisor's AD forward the guest's address to it; takes some hundred
    microseconds a node. Raises NamespaceError, NetlinkError."""
    baseline = plan.baseline
    assert baseline is not None  # noqa: S101 - asked for only in labs that have one
    ways = baseline.placement(hypervisor)
    network = f"{baseline.address(guest.name, hypervisor)}/32"
    for node, hop in ways.items():
        with inside(NETNS_ROOT / plan.netns(node)):
            if hop:
                set_route(network, via=hop, source=baseline.node(node).address)
            else:
                set_route(network, device=guest.tap, source=baseline.node(node).address)


def forget_guest(plan: Plan, guest: GuestPlan, hypervisor: str) -> None:
    """Let the gateways of the hypervisor's AD forget the guest's address there."""
    baseline = plan.baseline
    assert baseline is not None  # noqa: S101 - asked for only in labs that have one
    network = f"{baseline.address(guest.name, hypervisor)}/32"
    for node in baseline.placement(hypervisor):
        with inside(NETNS_ROOT / plan.netns(node)):
            delete_route(network)
