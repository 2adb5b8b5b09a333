"""Chooses the edge of the present DAG node that is tried next."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.element import Element
from xiatb.click.errors import ConfigError
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet


def _order(text: str) -> bool:
    word = to_text(text)
    if word not in ("first", "next"):
        raise ConfigError(f"'{text}' is neither first nor next")
    return word == "first"


class XIASelectPath(Element):
    """`first` chooses the edge of highest priority of the last visited node, `next` the one after it.

    Output 0: there is such an edge. Output 1: there is none, the destination cannot be reached (also
    when the node has recognised itself as often as the DAG has nodes: its edges go in a circle).
    """

    __slots__ = ("order",)
    PORTS = "1/2"
    PROCESSING = "push"
    ARGS = (Arg("ORDER", _order, "first or next", REQUIRED),)
    order: bool

    def receiver(self, port: int) -> Any:
        """One of the two behaviours."""
        return self.receive_first if self.order else self.receive_next

    def receive(self, p: Packet) -> None:
        """Either behaviour, for callers that did not ask for a receiver."""
        if self.order:
            self.receive_first(p)
        else:
            self.receive_next(p)

    def receive_first(self, p: Packet) -> None:
        """Start with edge 0."""
        p.path = 0
        data, net = p.data, p.net
        dnode, last = data[net + 5], data[net + 7]
        edge = net + 4 + 28 * dnode if last == 0x7E else net + 32 + 28 * last
        if data[edge] & 0x7F < dnode and p.steps < dnode:
            self.out0(p)
        else:
            self.outs[1](p)

    def receive_next(self, p: Packet) -> None:
        """Go on to the next edge."""
        path = p.path = p.path + 1
        if path < 4:
            data, net = p.data, p.net
            dnode, last = data[net + 5], data[net + 7]
            edge = net + 4 + 28 * dnode + path if last == 0x7E else net + 32 + 28 * last + path
            if data[edge] & 0x7F < dnode:
                self.out0(p)
                return
        self.outs[1](p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """As receive."""
        p = trace.packet
        p.path = 0 if self.order else p.path + 1
        data, net = p.data, p.net
        dnode, last = data[net + 5], data[net + 7]
        edge = net + 4 + 28 * dnode if last == 0x7E else net + 32 + 28 * last
        if p.path == 4 or (self.order and p.steps >= dnode):
            return 1
        return 0 if data[edge + p.path] & 0x7F < dnode else 1
