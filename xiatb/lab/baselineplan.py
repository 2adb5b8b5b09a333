"""From the nodes, links and guests of a plan to the addresses and routes of its IP baseline, purely."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from ipaddress import IPv4Address

from xiatb.lab.baseline import Baseline, IpGuest, IpNode
from xiatb.lab.plan import GuestPlan, LinkPlan, NodePlan

_LINKS = IPv4Address("10.255.0.0")
_TRANSIT = ("router", "hypervisor")


def plan_baseline(
    nodes: Sequence[NodePlan], links: Sequence[LinkPlan], guests: Sequence[GuestPlan]
) -> Baseline:
    """Addresses and routes for these nodes, links and guests; deterministic. See `baseline`."""
    ads = {name: number for number, name in enumerate(sorted({n.ad_name for n in nodes if n.ad_name}), 1)}
    addresses = {
        node.name: f"10.{ads[node.ad_name]}.0.{node.index + 1}" if node.ad_name else "" for node in nodes
    }
    return Baseline(
        tuple(_node(node, nodes, links, addresses, ads) for node in nodes),
        tuple(
            IpGuest(guest.name, tuple((ad, f"10.{number}.1.{guest.index + 1}") for ad, number in ads.items()))
            for guest in guests
        ),
    )


def link_address(link: int, end: int) -> str:
    """Address of the first (`end` 0) or second end of the link with this number."""
    return str(_LINKS + 4 * link + 1 + end)


def _node(
    node: NodePlan,
    nodes: Sequence[NodePlan],
    links: Sequence[LinkPlan],
    addresses: dict[str, str],
    ads: dict[str, int],
) -> IpNode:
    gateway = node.kind in _TRANSIT
    ports = tuple(
        (end.port, f"{link_address(link.index, number)}/30")
        for link in links
        for number, end in enumerate((link.a, link.b))
        if end.node == node.name
    )
    routes: dict[str, str] = {}
    for other, hop in _reached(node, {one.name: one for one in nodes}, links):
        if other.ad_name is None:
            continue
        if gateway and other.ad_name == node.ad_name:
            routes[f"{addresses[other.name]}/32"] = hop
        elif other.kind in _TRANSIT:
            routes.setdefault(f"10.{ads[other.ad_name]}.0.0/16", hop)
    return IpNode(
        node.name, node.ad_name or "", gateway, addresses[node.name], ports, tuple(sorted(routes.items()))
    )


def _reached(
    start: NodePlan, nodes: dict[str, NodePlan], links: Sequence[LinkPlan]
) -> list[tuple[NodePlan, str]]:
    """All other nodes and the next hop to each, nearest first; hosts forward nothing."""
    first = {start.name: ""}
    queue = deque([start.name])
    found = []
    while queue:
        here = queue.popleft()
        if here != start.name and nodes[here].kind not in _TRANSIT:
            continue
        for link in links:
            for near, far in ((0, 1), (1, 0)):
                ends = (link.a, link.b)
                other = ends[far].node
                if ends[near].node == here and other not in first:
                    first[other] = first[here] or link_address(link.index, far)
                    queue.append(other)
                    found.append((nodes[other], first[other]))
    return found
