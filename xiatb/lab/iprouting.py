"""The kernel of an IP router: addresses, forwarding, routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from xiatb.lab.netlink import index_of, routes


def forward_ip(netns: Path, addresses: Mapping[str, str], ways: Iterable[tuple[str, str]]) -> None:
    """Makes a namespace an IPv4 router, with `addresses` (interface -> address/prefix) and `ways` (network,
    next hop). The interfaces are up. Raises LinkError.
    """
    with routes(netns) as socket_:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for name, address in addresses.items():
            where, _, length = address.partition("/")
            socket_.addr("add", index=index_of(socket_, name), address=where, prefixlen=int(length))
        for network, hop in ways:
            socket_.route("add", dst=network, gateway=hop)
