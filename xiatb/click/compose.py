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
CARDS = {
    "internal": "XIAInternalCard", "link": "XIALineCard", "guest": "XIAGuestCard", "ip": "XIAIPLineCard",
}  # fmt: skip
NO_PORT = 255
UDP_OVERHEAD = 28
"""Octets of an IPv4 and a UDP header."""


class PortSpec(NamedTuple):
    """A port: its name, what is behind it (`internal`: the node's own applications; `link`; `guest`: a
    guest's tap; `ip`: an IPv4 network), and the largest network packet it takes, octets. ip (address/prefix)
    and gateway (address, may be empty) are of a port to an IPv4 network.
    """

    name: str
    role: str = "link"
    mtu: int = 1500
    ip: str = ""
    gateway: str = ""


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
        more = str(port.mtu)
        if port.role == "ip":
            more = f"{port.mtu - UDP_OVERHEAD}, {port.ip}, {port.gateway or '0.0.0.0'}"
        lines.append(f"lc{index} :: {card}({quote(port.name)}, {index}, {more});")
        lines.append(f"out[{index}] -> lc{index} -> core;")
        lines.append(f"lc{index}[1] -> [1] core;")
    if not ports:
        lines.append("out -> Discard; Idle -> core; Idle -> [1] core;")
    return "\n".join(lines) + "\n"
