"""Mininet as the maker of nodes and links, kept on a short lead.

No switches, no controller, no `mn -c`, no build() or stop(): nodes get no IP addresses, `fixLimits` does not
touch the host's sysctls, and teardown is the journal's business. Mininet's logger writes to stdout; it is set
to warnings and its messages end up in the supervisor's log.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from mininet.link import Link
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.node import Node

from xiatb.errors import XiatbError
from xiatb.node import rtnetlink


class MininetError(XiatbError):
    """Mininet could not make a node or a link."""


class VethLink(Link):  # type: ignore[misc]
    """A link of Mininet whose pair is made by one request to the kernel, not by a program in a shell."""

    @classmethod
    def makeIntfPair(  # noqa: N802, PLR0913  as Mininet has it
        cls,
        intfname1: str,
        intfname2: str,
        addr1: str | None = None,
        addr2: str | None = None,
        node1: Any = None,
        node2: Any = None,
        deleteIntfs: bool = False,  # noqa: N803
    ) -> None:
        """Called by `Link`. Raises NetlinkError, OSError when a node is gone."""
        with open(f"/proc/{node1.pid}/ns/net", "rb") as one, open(f"/proc/{node2.pid}/ns/net", "rb") as two:
            rtnetlink.add_veth(intfname1, intfname2, namespaces=(one.fileno(), two.fileno()))


class LabNet:
    """A Mininet object with nodes that are plain namespaces and links that are plain veth pairs."""

    def __init__(self) -> None:
        setLogLevel("warning")
        Mininet.inited = True  # else Mininet.init() would raise limits of the whole host by sysctl
        self._net: Any = Mininet(topo=None, build=False, controller=None, switch=None, host=Node)

    def add_node(self, name: str) -> int:
        """A node: a shell in new network and mount namespaces; its pid."""
        try:
            node = self._net.addHost(name, cls=Node, ip=None, inNamespace=True)
        except (OSError, AssertionError, IndexError) as error:
            raise MininetError(f"node {name}: {error}") from error
        return int(node.pid)

    def add_link(self, a: str, port_a: str, b: str, port_b: str) -> None:
        """A veth pair straight between two namespaces; nothing appears in the host's own."""
        nodes = self._net.nameToNode
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                VethLink(nodes[a], nodes[b], intfName1=port_a, intfName2=port_b, fast=True, up=None)
        except Exception as error:  # noqa: BLE001  Mininet raises bare Exception
            raise MininetError(f"link {a}:{port_a} -- {b}:{port_b}: {error}") from error

    def close(self) -> None:
        """End the shells and reap them; their namespaces go with the last thing that holds them."""
        for node in list(self._net.hosts):
            with contextlib.suppress(OSError, ValueError):
                node.terminate()
        self._net.hosts.clear()
