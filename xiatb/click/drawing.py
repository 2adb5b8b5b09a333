"""Pictures of a router graph: DOT for Graphviz, Mermaid, plain text, JSON."""

from __future__ import annotations

from typing import Any

from xiatb.click.flat import Connection
from xiatb.click.graph import Router


def _wires(router: Router) -> list[Connection]:
    return sorted(router.flat.connections, key=lambda wire: wire[:4])


def is_pull(router: Router, wire: Connection) -> bool:
    """Whether packets are pulled over a connection."""
    return router.processing[wire.source].split("/")[1][wire.out_port] == "l"


def dot(router: Router) -> str:
    """Graphviz: a box around each compound, dashed lines where packets are pulled."""
    lines = ["digraph router {", "  rankdir=LR; node [shape=box, fontname=monospace, fontsize=10];"]
    tree: dict[str, Any] = {}
    for name in router.elements:
        *outer, last = name.split("/")
        branch = tree
        for part in outer:
            branch = branch.setdefault(part, {})
        branch[last + "\0"] = name
    lines += _dot_branch(router, tree, "", "  ")
    for wire in _wires(router):
        style = "style=dashed, " if is_pull(router, wire) else ""
        ports = f"taillabel={_quote(str(wire.out_port))}, headlabel={_quote(str(wire.in_port))}"
        lines.append(f"  {_quote(wire.source)} -> {_quote(wire.target)} [{style}{ports}, labelfontsize=8];")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_branch(router: Router, branch: dict[str, Any], path: str, indent: str) -> list[str]:
    lines = []
    for part, value in branch.items():
        if isinstance(value, str):
            flat = router.flat.elements[value]
            label = (
                f"{part[:-1]}\\n{flat.class_name}({flat.config})"
                if flat.args
                else f"{part[:-1]}\\n{flat.class_name}"
            )
            lines.append(f"{indent}{_quote(value)} [label={_quote(label)}];")
        else:
            inner = f"{path}{part}"
            lines.append(
                f"{indent}subgraph {_quote('cluster_' + inner)} {{ label={_quote(part)}; color=grey;"
            )
            lines += _dot_branch(router, value, inner + "/", indent + "  ")
            lines.append(f"{indent}}}")
    return lines


def _quote(text: str) -> str:
    return '"' + text.replace('"', '\\"').replace("\n", " ") + '"'


def mermaid(router: Router) -> str:
    """Mermaid, for Markdown pages."""
    numbers = {name: f"e{index}" for index, name in enumerate(router.elements)}
    lines = ["flowchart LR"]
    for name, number in numbers.items():
        flat = router.flat.elements[name]
        lines.append(f'  {number}["{name} :: {flat.class_name}"]')
    for wire in _wires(router):
        arrow = "-.->" if is_pull(router, wire) else "-->"
        lines.append(
            f'  {numbers[wire.source]} {arrow}|"{wire.out_port} {wire.in_port}"| {numbers[wire.target]}'
        )
    return "\n".join(lines) + "\n"


def ascii_text(router: Router) -> str:
    """Plain text: every element with what its outputs lead to; `~>` where packets are pulled."""
    after: dict[str, list[Connection]] = {}
    for wire in _wires(router):
        after.setdefault(wire.source, []).append(wire)
    lines = []
    for name, element in router.elements.items():
        config = router.flat.elements[name].config
        lines.append(f"{name} :: {element.class_name}" + (f"({' '.join(config.split())})" if config else ""))
        for wire in after.get(name, []):
            arrow = "~>" if is_pull(router, wire) else "->"
            lines.append(f"    [{wire.out_port}] {arrow} [{wire.in_port}] {wire.target}")
    return "\n".join(lines) + "\n"


def data(router: Router) -> dict[str, Any]:
    """The graph as a JSON object."""
    return {
        "file": router.filename,
        "elements": [
            {
                "name": flat.name,
                "class": flat.class_name,
                "args": [argument.text for argument in flat.args],
                "processing": router.processing[flat.name],
                "where": str(flat.where),
            }
            for flat in router.flat.elements.values()
        ],
        "connections": [
            {
                "from": wire.source,
                "output": wire.out_port,
                "to": wire.target,
                "input": wire.in_port,
                "kind": "pull" if is_pull(router, wire) else "push",
            }
            for wire in _wires(router)
        ],
        "requirements": router.flat.requirements,
    }
