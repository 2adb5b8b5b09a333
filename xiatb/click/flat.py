"""The flat graph: elements and connections without compounds, and how compounds' ports are spliced out."""

from __future__ import annotations

from typing import NamedTuple

from xiatb.click.args import Argument
from xiatb.click.errors import Location, Problems

End = tuple[str, int]
"""An element and the number of one of its ports."""


class FlatElement(NamedTuple):
    """An element of the flat graph."""

    name: str
    class_name: str
    args: list[Argument]
    where: Location
    config_where: Location

    @property
    def config(self) -> str:
        """The configuration as text."""
        return ", ".join(argument.text for argument in self.args)


class Connection(NamedTuple):
    """Output `out_port` of `source` leads to input `in_port` of `target`."""

    source: str
    out_port: int
    target: str
    in_port: int
    where: Location


class Box(NamedTuple):
    """An expanded compound: how many ports it has, and where it was declared."""

    n_in: int
    n_out: int
    where: Location


class FlatGraph(NamedTuple):
    """A configuration without compounds."""

    elements: dict[str, FlatElement]
    connections: list[Connection]
    requirements: list[str]

    def to_text(self) -> str:
        """The graph in the Click language; flattening that gives the same graph."""
        lines = []
        for element in self.elements.values():
            config = f"({element.config})" if element.args else ""
            lines.append(f"{element.name} :: {element.class_name}{config};")
        lines.append("")
        for wire in sorted({wire[:4] for wire in self.connections}):
            source, out_port, target, in_port = wire
            left = f"{source} [{out_port}]" if out_port else source
            right = f"[{in_port}] {target}" if in_port else target
            lines.append(f"{left} -> {right};")
        return "\n".join(lines) + "\n"


def splice(
    elements: dict[str, FlatElement], boxes: dict[str, Box], wires: list[Connection]
) -> list[Connection]:
    """Connections between elements only. Ports of a compound `x` are the ends `x/input` and `x/output` inside
    it and `x` outside; packets pass from one to the other.
    """
    forward: dict[End, list[End]] = {}
    for wire in wires:
        source = wire.source + "/output" if wire.source in boxes else wire.source
        target = wire.target + "/input" if wire.target in boxes else wire.target
        forward.setdefault((source, wire.out_port), []).append((target, wire.in_port))
    connections: dict[tuple[str, int, str, int], Connection] = {}
    for wire in wires:
        if wire.source in elements:
            first = wire.target + "/input" if wire.target in boxes else wire.target
            for target, port in _follow(elements, forward, (first, wire.in_port)):
                key = (wire.source, wire.out_port, target, port)
                connections.setdefault(key, Connection(*key, wire.where))
    return list(connections.values())


def _follow(elements: dict[str, FlatElement], forward: dict[End, list[End]], start: End) -> list[End]:
    """The elements' inputs that `start` leads to, through any number of compounds."""
    found: list[End] = []
    waiting, seen = [start], set()
    while waiting:
        end = waiting.pop()
        if end in seen:
            continue
        seen.add(end)
        if end[0] in elements:
            found.append(end)
        else:
            waiting += forward.get(end, [])
    return found


def check_boxes(boxes: dict[str, Box], wires: list[Connection], bad: set[str], problems: Problems) -> None:
    """Report ports of compounds that do not exist or are not connected; not those of compounds in `bad`."""
    for wire in wires:
        ends = ((wire.source, wire.out_port, "output"), (wire.target, wire.in_port, "input"))
        for path, port, side in ends:
            box = boxes.get(path)
            if box is not None:
                count = box.n_out if side == "output" else box.n_in
                if port >= count:
                    problems.add(wire.where, f"'{path}' has no {side} {port} (it has {count})")
    inputs = {(wire.target, wire.in_port) for wire in wires}
    outputs = {(wire.source, wire.out_port) for wire in wires}
    for path, box in boxes.items():
        for side, count, used in (("input", box.n_in, inputs), ("output", box.n_out, outputs)):
            for port in range(count):
                if (path, port) not in used and path not in bad:
                    problems.add(box.where, f"{side} {port} of '{path}' is not connected")
