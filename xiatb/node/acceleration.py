"""Which ports of a Click graph may be forwarded for by the eBPF engine: where the graph is the usual one.

The engine does what the composition of xiatb.click.compose does. A file of the user's own may hold more: a
counter, a sampler, a delay before a port must see every packet. So the two flat graphs are compared; a
difference at a line card leaves that port to Click, one anywhere else the whole node.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from xiatb.click.flat import FlatElement, FlatGraph

_ARGUMENTS_THAT_MATTER = {"XIAXIDRouteTable": 1, "XARPQuerier": 1, "CheckXIAMTU": 0, "Queue": 0}
"""How many leading arguments of a class must be the usual ones (default all); routes and sizes need not."""
_LINE_CARD = re.compile(r"lc(\d+)/")


class Differences(NamedTuple):
    """What keeps the engine away: from the whole node ("" when nothing does), and from ports by number."""

    node: str
    ports: dict[int, str]


def differences(graph: FlatGraph, usual: FlatGraph) -> Differences:
    """Compares a node's graph with the composition for its role and ports.

    Elements that hang at nothing of the usual graph, or only feed packets into it, make no difference; nor
    does an XIAFastPath, which changes nothing for packets.
    """
    graph, usual = _without_fast_paths(graph), _without_fast_paths(usual)
    node = ""
    ports: dict[int, str] = {}
    for names, reason in (*_elements(graph, usual), *_wires(graph, usual)):
        cards = {int(found[1]) for name in names if (found := _LINE_CARD.match(name))}
        for card in cards:
            ports.setdefault(card, reason)
        if not cards:
            node = node or reason
    return Differences(node, ports)


def _without_fast_paths(graph: FlatGraph) -> FlatGraph:
    passed = {name for name, element in graph.elements.items() if element.class_name == "XIAFastPath"}
    behind = {wire.source: (wire.target, wire.in_port) for wire in graph.connections if wire.source in passed}
    wires = []
    for wire in graph.connections:
        end = (wire.target, wire.in_port)
        while end[0] in passed and end[0] in behind:
            end = behind[end[0]]
        if wire.source not in passed:
            wires.append(wire._replace(target=end[0], in_port=end[1]))
    elements = {name: element for name, element in graph.elements.items() if name not in passed}
    return graph._replace(elements=elements, connections=wires)


def _elements(graph: FlatGraph, usual: FlatGraph) -> list[tuple[list[str], str]]:
    found = []
    for name, element in usual.elements.items():
        own = graph.elements.get(name)
        if own is None:
            found.append(([name], f"there is no {name}"))
        elif own.class_name != element.class_name:
            found.append(([name], f"{name} is a {own.class_name}, not a {element.class_name}"))
        elif _arguments(own) != _arguments(element):
            found.append(([name], f"{name} is {own.class_name}({own.config})"))
    return found


def _arguments(element: FlatElement) -> list[str]:
    texts = [argument.text for argument in element.args]
    return texts[: _ARGUMENTS_THAT_MATTER.get(element.class_name, len(texts))]


def _wires(graph: FlatGraph, usual: FlatGraph) -> list[tuple[list[str], str]]:
    """Outputs of usual elements that lead elsewhere than usual."""
    expected, present = _outputs(usual), _outputs(graph)
    found = []
    for end in sorted(expected.keys() | present.keys()):
        name, port = end
        before, now = expected.get(end, set()), present.get(end, set())
        if name not in usual.elements or name not in graph.elements or before == now:
            continue
        to = sorted(now - before)
        where = ", ".join(f"{target} ({graph.elements[target].class_name})" for target, _ in to) or "nothing"
        names = [name, *(target for target, _ in before ^ now)]
        found.append((names, f"{name}[{port}] leads to {where}"))
    return found


def _outputs(graph: FlatGraph) -> dict[tuple[str, int], set[tuple[str, int]]]:
    outputs: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for wire in graph.connections:
        outputs.setdefault((wire.source, wire.out_port), set()).add((wire.target, wire.in_port))
    return outputs
