"""The IPv4 network that a lab has beside XIA when its topology says `baseline: ip`: addresses and routes.

Every AD has a subnet, 10.A.0.0/16 (A counts the ADs from 1): 10.A.0.N are its nodes (on the loopback),
10.A.1.G its guests. A guest has an address in every AD and uses that of the AD it is in. Links are
10.255.0.0/16 in pieces of four addresses. Routes are static, by the fewest hops: the gateways of an AD know
each of its nodes and guests, others the subnet. Where a guest's /32 leads to is changed when it moves
(`Baseline.placement`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GATEWAY = "169.254.1.1"
"""What every guest has as its default gateway: each hypervisor has it on every tap, with the tap's MAC, which
is the same on all hypervisors ("anycast gateway"), so that nothing in the guest changes within an AD."""


@dataclass(frozen=True)
class IpNode:
    """One node's IPv4 configuration; no address without an AD."""

    name: str
    ad: str
    gateway: bool
    """a router or hypervisor: forwards, and knows its AD's guests"""
    address: str
    ports: tuple[tuple[str, str], ...]
    """(interface, address/prefix)"""
    routes: tuple[tuple[str, str], ...]
    """(network, next hop)"""


@dataclass(frozen=True)
class IpGuest:
    """A guest's address in each AD."""

    name: str
    addresses: tuple[tuple[str, str], ...]
    """(AD, address)"""


@dataclass(frozen=True)
class Baseline:
    """All of it."""

    nodes: tuple[IpNode, ...]
    guests: tuple[IpGuest, ...]

    def node(self, name: str) -> IpNode:
        """Raises KeyError when there is none of that name."""
        return {node.name: node for node in self.nodes}[name]

    def address(self, guest: str, hypervisor: str) -> str:
        """The guest's address while it is on that hypervisor. Raises KeyError."""
        addresses = {one.name: dict(one.addresses) for one in self.guests}
        return addresses[guest][self.node(hypervisor).ad]

    def placement(self, hypervisor: str) -> dict[str, str]:
        """Gateway of the hypervisor's AD -> next hop of guests on that hypervisor; "" at itself (its tap)."""
        target = self.node(hypervisor)
        hops = {}
        for node in self.nodes:
            if node.gateway and node.ad == target.ad:
                hop = "" if node is target else dict(node.routes).get(f"{target.address}/32")
                if hop is not None:
                    hops[node.name] = hop
        return hops

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Baseline | None:
        """The inverse of dataclasses.asdict. Raises KeyError or TypeError on anything else."""
        if data is None:
            return None
        nodes = tuple(
            IpNode(**{**node, "ports": _pairs(node["ports"]), "routes": _pairs(node["routes"])})
            for node in data["nodes"]
        )
        guests = tuple(IpGuest(guest["name"], _pairs(guest["addresses"])) for guest in data["guests"])
        return cls(nodes, guests)


def _pairs(rows: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((a, b) for a, b in rows)
