"""The IPv4 part of a topology: addresses, gateways between it and XIA, and the routes of its kernels."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Interface
from typing import NamedTuple

IP_ROUTER = "ip_router"


class IpLink(NamedTuple):
    """A link of the IP network: its number in the file, two nodes and their addresses with prefix length."""

    number: int
    nodes: tuple[str, str]
    addresses: tuple[str, str]


class IpNetwork:
    """Everything that follows from the IP links of a file. `kinds`: node -> kind."""

    def __init__(self, links: Sequence[IpLink], kinds: Mapping[str, str]) -> None:
        self._links = {link.number: link for link in links}
        self._kinds = kinds

    def address(self, link: int, node: str) -> str:
        """The node's address with prefix length on a link of this network, "" on any other link."""
        found = self._links.get(link)
        return "" if found is None else found.addresses[found.nodes.index(node)]

    def next_router(self, link: int, node: str) -> str:
        """The address of the IP router at the other end, "" when that is none."""
        found = self._links.get(link)
        if found is None:
            return ""
        other = 1 - found.nodes.index(node)
        is_router = self._kinds.get(found.nodes[other]) == IP_ROUTER
        return found.addresses[other].partition("/")[0] if is_router else ""

    def gateway(self, nodes: Sequence[str]) -> tuple[str, str]:
        """(node, IPv4 address) of the first of `nodes` that is on an IP link, ("", "") when none is."""
        for node in nodes:
            for link in self._links.values():
                if node in link.nodes and self._kinds[node] != IP_ROUTER:
                    return node, self.address(link.number, node).partition("/")[0]
        return "", ""

    def routes(self, node: str) -> tuple[tuple[str, str], ...]:
        """(network, next hop) of every network that an IP router is not on, by the fewest hops; sorted."""
        first: dict[str, str] = {node: ""}
        found: dict[str, str] = {}
        queue = deque([node])
        while queue:
            here = queue.popleft()
            for link in self._links.values():
                if here not in link.nodes:
                    continue
                other = link.nodes[1 - link.nodes.index(here)]
                network = str(IPv4Interface(link.addresses[0]).network)
                found.setdefault(network, first[here])
                if other not in first and self._kinds.get(other) == IP_ROUTER:
                    hop = self.address(link.number, other).partition("/")[0]
                    first[other] = first[here] or hop
                    queue.append(other)
        return tuple(sorted((network, hop) for network, hop in found.items() if hop))
