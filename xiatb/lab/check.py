"""What a schema cannot say about a topology: references, names, ports, roles.

Works on the raw data and skips whatever has the wrong shape (the schema reports that), so that these errors
and the schema's come out of one run.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from xiatb.lab.checkip import check_ip
from xiatb.lab.source import Place, Source, did_you_mean

ENDPOINT = re.compile(r"^([^:\s]+)(?::(?:eth)?(\d{1,3}))?$")
MAX_PORT = 255


def check(source: Source, data: Any) -> None:
    """Adds a problem to `source` for every inconsistency in `data` (normalised raw data of a topology)."""
    if not isinstance(data, dict):
        return
    nodes = _table(data, "nodes")
    _check_names(source, data)
    _check_ads(source, data, nodes)
    linked = _check_links(source, data, nodes)
    check_ip(source, data, nodes)
    _check_guests(source, data, nodes)
    _check_services_of_lab(source, data, nodes)
    if "links" in data or len(nodes) > 1:
        for name in nodes:
            if name not in linked:
                source.add(("nodes", name), "has no link", "add one under links", at_key=True)
    _check_reach(source, data, nodes)


def split_endpoint(text: object) -> tuple[str, int | None] | None:
    """ "r1:eth2" or "r1:2" -> ("r1", 2); "r1" -> ("r1", None); None when it is neither."""
    match = ENDPOINT.match(text) if isinstance(text, str) else None
    return (match[1], int(match[2]) if match[2] else None) if match else None


def endpoints(data: dict[str, Any]) -> list[tuple[int, int, str, int | None]]:
    """(link index, end 0 or 1, node name, port number or None) of every end that can be read."""
    found = []
    links = data.get("links")
    for index, link in enumerate(links if isinstance(links, list) else []):
        ends = link.get("endpoints") if isinstance(link, dict) else None
        for end, text in enumerate(ends[:2] if isinstance(ends, list) else []):
            parsed = split_endpoint(text)
            if parsed is not None:
                found.append((index, end, *parsed))
    return found


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _get(table: dict[str, Any], name: str, key: str) -> Any:
    entry = table.get(name)
    return entry.get(key) if isinstance(entry, dict) else None


def _check_names(source: Source, data: dict[str, Any]) -> None:
    """Nodes and guests share one name space: `exec`, `ping` and hosts.xia take either."""
    nodes = _table(data, "nodes")
    for name in _table(data, "guests"):
        if name in nodes:
            line = source.keys.get(("nodes", name), (0, 0))[0]
            hint = f"a node has this name (line {line})"
            source.add(("guests", name), "name used twice", hint, at_key=True)


def _check_ads(source: Source, data: dict[str, Any], nodes: dict[str, Any]) -> None:
    ads = _table(data, "ads")
    for name in nodes:
        ad, kind = _get(nodes, name, "ad"), _get(nodes, name, "kind")
        if ad is None and kind in ("router", "hypervisor"):
            source.add(("nodes", name), f"a {kind} needs an ad", "add ad: NAME", at_key=True)
        if isinstance(ad, str) and ads and ad not in ads:
            hint = did_you_mean(ad, ads) or "add it under ads"
            source.add(("nodes", name, "ad"), f"no AD named {ad!r}", hint)


def _check_links(source: Source, data: dict[str, Any], nodes: dict[str, Any]) -> set[str]:
    linked: set[str] = set()
    ports: dict[tuple[str, int], Place] = {}
    ends: dict[int, list[str]] = defaultdict(list)
    for index, end, node, port in endpoints(data):
        place: Place = ("links", index, "endpoints", end)
        ends[index].append(node)
        if node not in nodes:
            source.add(place, f"no node named {node!r}", _missing_node(node, data, nodes))
            continue
        linked.add(node)
        if port is None:
            continue
        if port > MAX_PORT:
            source.add(place, f"port {port} is out of range: 0 to {MAX_PORT}")
        elif (node, port) in ports:
            other = ports[(node, port)]
            hint = f"links[{other[1]}] has it already; leave the port away to get a free one"
            source.add(place, f"two links on port {node}:eth{port}", hint)
        else:
            ports[(node, port)] = place
    for index, pair in ends.items():
        if len(pair) == 2 and pair[0] == pair[1]:
            source.add(("links", index), f"both ends are {pair[0]!r}", "a link joins two nodes")
    _check_link_shapes(source, data)
    return linked


def _missing_node(node: str, data: dict[str, Any], nodes: dict[str, Any]) -> str:
    if node in _table(data, "guests"):
        return f"{node!r} is a guest: its link is the tap of the hypervisor that it runs on"
    return did_you_mean(node, nodes) or "add it under nodes"


def _check_link_shapes(source: Source, data: dict[str, Any]) -> None:
    links = data.get("links")
    for index, link in enumerate(links if isinstance(links, list) else []):
        if isinstance(link, str):
            source.add(
                ("links", index), f"{link!r} is not a link", "write NODE -- NODE or {endpoints: [NODE, NODE]}"
            )
        ends = link.get("endpoints") if isinstance(link, dict) else None
        for end, text in enumerate(ends[:2] if isinstance(ends, list) else []):
            if isinstance(text, str) and split_endpoint(text) is None:
                place = ("links", index, "endpoints", end)
                source.add(place, f"{text!r} is not an endpoint", "write NODE or NODE:PORT, such as r1:eth0")


def _check_services_of_lab(source: Source, data: dict[str, Any], nodes: dict[str, Any]) -> None:
    """`name_server` and `rendezvous` name a router or hypervisor."""
    gateways = [name for name in nodes if _get(nodes, name, "kind") in ("router", "hypervisor")]
    for key in ("name_server", "rendezvous"):
        name = data.get(key)
        if isinstance(name, str) and name not in gateways:
            hint = did_you_mean(name, gateways) or "it runs on a router or hypervisor"
            source.add((key,), f"no router named {name!r}", hint)


def _check_guests(source: Source, data: dict[str, Any], nodes: dict[str, Any]) -> None:
    hypervisors = [name for name in nodes if _get(nodes, name, "kind") == "hypervisor"]
    guests = _table(data, "guests")
    for name in guests:
        host = _get(guests, name, "on")
        place: Place = ("guests", name, "on")
        if not isinstance(host, str):
            continue
        if host not in nodes:
            hint = did_you_mean(host, hypervisors or nodes)
            source.add(place, f"no node named {host!r}", hint)
        elif host not in hypervisors:
            kind = _get(nodes, host, "kind")
            hint = did_you_mean(host, hypervisors) or f"write kind: hypervisor at nodes.{host}"
            source.add(place, f"{host!r} is a {kind}, not a hypervisor", hint)
        _check_services(source, name, _get(guests, name, "services"))


def _check_services(source: Source, guest: str, services: Any) -> None:
    seen: set[str] = set()
    for index, service in enumerate(services if isinstance(services, list) else []):
        if not isinstance(service, dict):
            continue
        name = service.get("name") or service.get("kind")
        if isinstance(name, str) and name in seen:
            hint = "give each a name: of its own"
            source.add(("guests", guest, "services", index), f"service name {name!r} used twice", hint)
        seen.add(str(name))
        for key in ("memory", "disk"):
            if key in service and service.get("kind") in ("echo", "responder"):
                place = ("guests", guest, "services", index, key)
                source.add(place, f"a {service['kind']} has no {key} rate", "only a writer does", at_key=True)


def _check_reach(source: Source, data: dict[str, Any], nodes: dict[str, Any]) -> None:
    """Hosts get their locator from a router or hypervisor on the same link."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    pairs: dict[int, list[str]] = defaultdict(list)
    for index, _end, node, _port in endpoints(data):
        pairs[index].append(node)
    for pair in pairs.values():
        if len(pair) == 2:
            neighbours[pair[0]].add(pair[1])
            neighbours[pair[1]].add(pair[0])
    for name in nodes:
        if _get(nodes, name, "kind") != "host" or not neighbours[name]:
            continue
        near = [one for one in neighbours[name] if one in nodes]
        if near and all(_get(nodes, one, "kind") in ("host", "ip_router") for one in near):
            hint = "hosts do not forward; put a router between"
            source.add(("nodes", name), "is linked to no router", hint, at_key=True)
        ad = _get(nodes, name, "ad")
        gateways = [one for one in near if _get(nodes, one, "kind") in ("router", "hypervisor")]
        there = {_get(nodes, one, "ad") for one in gateways}
        if ad is not None and there and ad not in there:
            hint = f"its routers are in {', '.join(sorted(map(str, there)))}"
            source.add(("nodes", name, "ad"), f"no router of {ad!r} on its links", hint)
