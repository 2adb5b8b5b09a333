"""Makes a node's Click graph: the user's own file, or the composition of its role and ports."""

from __future__ import annotations

from collections.abc import Sequence

from xiatb.click.compose import PortSpec, compose
from xiatb.click.graph import Router
from xiatb.node.config import NodeConfig
from xiatb.node.port import Port


def build_router(config: NodeConfig, ports: Sequence[Port]) -> Router:
    """The checked graph of a node, not yet initialised; what runs is written to `node.click`.

    ports: all of them in the order of their numbers, with the MTUs that the kernel tells.
    Raises InvalidFileError with every error of the user's file.
    """
    if config.click is not None:
        return Router.from_file(config.click)
    text = composition(config, ports)
    config.graph_path.write_text(text, encoding="utf-8")
    return Router.from_text(text, str(config.graph_path))


def composition(config: NodeConfig, ports: Sequence[Port]) -> str:
    """The usual graph for the node's role and ports, as text."""
    addresses = {item.device: (item.ip, item.ip_gateway) for item in config.ports}
    nothing = ("", "")
    specs = [PortSpec(port.name, port.role, port.mtu, *addresses.get(port.name, nothing)) for port in ports]
    return compose(config.kind, specs)
