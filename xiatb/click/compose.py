"""Writes the Click configuration of one node: its role's core, a line card for every port."""

from __future__ import annotations

from typing import NamedTuple

from xiatb.click.args import quote
from xiatb.click.errors import ConfigError

CORES = {
    "router": "XIARouterCore",
    "hypervisor": "XIAHypervisorCore",
    "host": "XIAHostCore",
    "guest": "XIAHostCore",
}
LIBRARIES = {"router": "router", "hypervisor": "hypervisor", "host": "host", "guest": "host"}
CARDS = {"internal": "XIAInternalCard", "link": "XIALineCard", "guest": "XIAGuestCard"}
NO_PORT = 255


class PortSpec(NamedTuple):
    """A port: its name, what is behind it (`internal`: the node's own applications; `link`; `guest`: a
    guest's tap), and the largest XIP packet it takes, octets.
    """

    name: str
    role: str = "link"
    mtu: int = 1500


def compose(role: str, ports: list[PortSpec]) -> str:
    """The configuration of a node of `role` (router, hypervisor, host, guest); ports are numbered in order.

    Elements that the node relies on: `core/rt_AD` and the like, `lcN/xarpq`, `lcN/inject`,
    `core/from_host`. Raises ConfigError for an unknown role.
    """
    if role not in CORES:
        raise ConfigError(f"'{role}' is no role of a node (expected one of {', '.join(CORES)})")
    internal = next((index for index, port in enumerate(ports) if port.role == "internal"), NO_PORT)
    config = f"({internal})" if CORES[role] == "XIAHostCore" else ""
    lines = [
        f"// A {role} with {len(ports)} port{'' if len(ports) == 1 else 's'}.",
        f"require(library {LIBRARIES[role]}.click);",
        "",
        f"core :: {CORES[role]}{config};",
        "out :: XIAPaintSwitch;",
        "core -> out;",
        "",
    ]
    for index, port in enumerate(ports):
        if port.role not in CARDS:
            raise ConfigError(f"port '{port.name}': '{port.role}' is no role of a port")
        card = CARDS[port.role]
        lines.append(f"lc{index} :: {card}({quote(port.name)}, {index}, {port.mtu});")
        lines.append(f"out[{index}] -> lc{index} -> core;")
        lines.append(f"lc{index}[1] -> [1] core;")
    if not ports:
        lines.append("out -> Discard; Idle -> core; Idle -> [1] core;")
    return "\n".join(lines) + "\n"
