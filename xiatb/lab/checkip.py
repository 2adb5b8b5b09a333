"""What must hold of a topology's IP links: whose they may be, and that their addresses fit together."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import Any

from xiatb.lab.source import Place, Source


def check_ip(source: Source, data: dict[str, Any], nodes: dict[str, Any]) -> None:
    """Adds a problem to `source` for all that is wrong with links with `ip` and nodes of kind ip_router.

    `data` is normalised raw data; what has the wrong shape is passed over."""
    links = data.get("links")
    used: dict[str, Place] = {}
    gateways: dict[str, int] = {}
    for index, link in enumerate(links if isinstance(links, list) else []):
        ends = link.get("endpoints") if isinstance(link, dict) else None
        if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, str) for end in ends):
            continue
        names = [end.partition(":")[0] for end in ends]
        kinds = [_kind(nodes, name) for name in names]
        if link.get("ip") is None:
            if "ip_router" in kinds:
                hint = "write ip: [ADDRESS/PREFIX, ADDRESS/PREFIX]"
                source.add(("links", index), "a link of an ip_router needs addresses", hint)
            continue
        for name, kind in zip(names, kinds, strict=True):
            if kind in ("host", "hypervisor"):
                hint = "a router between carries XIP across"
                source.add(("links", index, "ip"), f"{name!r} is a {kind}, it has no IP", hint, at_key=True)
            elif kind == "router" and gateways.setdefault(name, index) != index:
                hint = "one link leads to the IP network"
                source.add(("links", index, "ip"), f"{name!r} has an IP link already", hint, at_key=True)
        _check_addresses(source, index, link["ip"], used)
    if gateways and data.get("baseline"):
        source.add(("baseline",), "no IP baseline beside links with ip", "leave one of both out", at_key=True)
    for name in nodes:
        if _kind(nodes, name) == "ip_router":
            for key in ("ad", "click"):
                if nodes[name].get(key) is not None:
                    source.add(("nodes", name, key), f"an ip_router has no {key}", "it knows IP alone")


def _kind(nodes: dict[str, Any], name: str) -> Any:
    entry = nodes.get(name)
    return entry.get("kind") if isinstance(entry, dict) else None


def _check_addresses(source: Source, index: int, texts: Any, used: dict[str, Place]) -> None:
    if not isinstance(texts, list) or len(texts) != 2:
        return
    found = []
    for end, text in enumerate(texts):
        place: Place = ("links", index, "ip", end)
        try:
            address = IPv4Interface(str(text))
            if "/" not in str(text) or not 8 <= address.network.prefixlen <= 30:
                raise ValueError("the prefix length is to be 8 to 30")
            if address.ip in (address.network.network_address, address.network.broadcast_address):
                raise ValueError("that is no host's address")
        except ValueError as error:
            source.add(place, f"{text!r} is not like 192.0.2.1/24: {error}", "write ADDRESS/PREFIX")
            continue
        if str(address.ip) in used:
            source.add(place, f"address {address.ip} used twice", f"links[{used[str(address.ip)][1]}] has it")
        used[str(address.ip)] = place
        found.append(address)
    if len(found) == 2 and found[0].network != found[1].network:
        source.add(("links", index, "ip"), "the two ends are in different networks", "", at_key=True)
