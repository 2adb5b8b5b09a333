"""Checks of a flat graph: every port connected, numbers of ports as the classes want them, push meets pull.

Agnostic ports take the kind of what they are connected to; an element's agnostic ports are all of one
kind (as in Click, where a packet goes through it from any input to any output). What is left over
when nothing more can be derived is push.
"""

from __future__ import annotations

from xiatb.click.element import Element
from xiatb.click.errors import Location, Problems
from xiatb.click.flat import Connection, FlatGraph

PUSH, PULL, AGNOSTIC = "h", "l", "a"
KIND_WORDS = {PUSH: "push", PULL: "pull", AGNOSTIC: "agnostic"}
_SHORT = {"push": "h/h", "pull": "l/l", "agnostic": "a/a"}

Ports = dict[str, tuple[int, int]]


def count_ports(flat: FlatGraph) -> Ports:
    """Numbers of inputs and outputs of every element, as its connections use them."""
    counts = {name: [0, 0] for name in flat.elements}
    for wire in flat.connections:
        counts[wire.source][1] = max(counts[wire.source][1], wire.out_port + 1)
        counts[wire.target][0] = max(counts[wire.target][0], wire.in_port + 1)
    return {name: (found[0], found[1]) for name, found in counts.items()}


def port_range(code: str, other: int) -> tuple[int, int | None]:
    """(least, most) number of ports for a code as `1`, `1-2`, `2-`, `-`, `=`; most None is any number."""
    if code == "=":
        return other, other
    if code == "-":
        return 0, None
    least, dash, most = code.partition("-")
    if not dash:
        return int(least), int(least)
    return int(least), int(most) if most else None


def check_ports(
    flat: FlatGraph, elements: dict[str, Element], ports: Ports, wrong: set[str], problems: Problems
) -> None:
    """Report numbers of ports that the classes do not have, and ports that are not connected.

    Of elements in `wrong`, whose arguments are bad, only the class is asked.
    """
    used: set[tuple[str, str, int]] = set()
    for wire in flat.connections:
        used.add((wire.source, "output", wire.out_port))
        used.add((wire.target, "input", wire.in_port))
    for name, element in elements.items():
        where = flat.elements[name].where
        n_in, n_out = ports[name]
        codes = type(element).PORTS.split("/")
        wanted = (None, None) if name in wrong else element.ports_wanted()
        sides = (("input", n_in, codes[0], wanted[0], n_out), ("output", n_out, codes[1], wanted[1], n_in))
        for side, count, code, exact, other in sides:
            least, most = (exact, exact) if exact is not None else port_range(code, other)
            label = f"'{name} :: {element.class_name}'"
            if most is not None and count > most:
                problems.add(
                    where, f"{label} has no {side} {count - 1} (it has {_amount(least, most, side)})"
                )
                continue
            for port in range(max(least, count)):
                if (name, side, port) not in used:
                    problems.add(where, f"{side} {port} of {label} is not connected")


def _amount(least: int, most: int, side: str) -> str:
    if most == 0:
        return f"no {side}s"
    number = str(most) if least == most else f"{least} to {most}"
    return f"{number} {side}{'' if most == 1 else 's'}"


def resolve(
    flat: FlatGraph, elements: dict[str, Element], ports: Ports, problems: Problems
) -> dict[str, str]:
    """Find out which ports push and which pull, and report connections that do not agree.

    Gives for every element a code as `h/lh`: one letter for each input, then for each output.
    """
    kinds: dict[tuple[str, str, int], str] = {}
    for name, element in elements.items():
        n_in, n_out = ports[name]
        code = _SHORT.get(type(element).PROCESSING, type(element).PROCESSING).split("/")
        for side, letters, count in (("i", code[0], n_in), ("o", code[1], n_out)):
            for port in range(count):
                kinds[name, side, port] = letters[min(port, len(letters) - 1)] if letters else AGNOSTIC
    wires = [w for w in flat.connections if w.source in elements and w.target in elements]
    groups: dict[str, list[tuple[str, str, int]]] = {}
    for key, kind in kinds.items():
        if kind == AGNOSTIC:
            groups.setdefault(key[0], []).append(key)
    _propagate(wires, kinds, groups)
    for key, kind in kinds.items():
        if kind == AGNOSTIC:
            kinds[key] = PUSH
    _check_wires(wires, kinds, elements, problems)
    found = {}
    for name in elements:
        n_in, n_out = ports[name]
        ins = "".join(kinds[name, "i", port] for port in range(n_in))
        outs = "".join(kinds[name, "o", port] for port in range(n_out))
        found[name] = f"{ins}/{outs}"
    return found


def _propagate(
    wires: list[Connection],
    kinds: dict[tuple[str, str, int], str],
    groups: dict[str, list[tuple[str, str, int]]],
) -> None:
    """Spread known kinds over connections and through agnostic elements until nothing changes."""
    changed = True
    while changed:
        changed = False
        for wire in wires:
            left, right = (wire.source, "o", wire.out_port), (wire.target, "i", wire.in_port)
            for known, other in ((left, right), (right, left)):
                if kinds[known] != AGNOSTIC and kinds[other] == AGNOSTIC:
                    for key in groups[other[0]]:
                        kinds[key] = kinds[known]
                    changed = True


def _check_wires(
    wires: list[Connection],
    kinds: dict[tuple[str, str, int], str],
    elements: dict[str, Element],
    problems: Problems,
) -> None:
    outs: dict[tuple[str, int], Location] = {}
    ins: dict[tuple[str, int], Location] = {}
    for wire in wires:
        left, right = kinds[wire.source, "o", wire.out_port], kinds[wire.target, "i", wire.in_port]
        source = _end(left, "output", wire.out_port, elements[wire.source])
        target = _end(right, "input", wire.in_port, elements[wire.target])
        if left != right:
            need = "a Queue" if left == PUSH else "an Unqueue"
            problems.add(wire.where, f"{source} is connected to {target} (expected {need} between them)")
            continue
        if left == PUSH:
            if (wire.source, wire.out_port) in outs:
                problems.add(wire.where, f"{source} is connected more than once (expected a Tee)")
            outs[wire.source, wire.out_port] = wire.where
        else:
            if (wire.target, wire.in_port) in ins:
                problems.add(wire.where, f"{target} is connected more than once (expected a scheduler)")
            ins[wire.target, wire.in_port] = wire.where
            if (wire.source, wire.out_port) in outs:
                problems.add(wire.where, f"{source} is connected more than once")
            outs[wire.source, wire.out_port] = wire.where


def _end(kind: str, side: str, port: int, element: Element) -> str:
    return f"{KIND_WORDS[kind]} {side} {port} of '{element.name} :: {element.class_name}'"
