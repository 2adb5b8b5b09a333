"""What a graph does to all packets of a flow, found out once: the ground that fast paths stand on.

A flow is what came in by one port with the same numbers of nodes, last visited node and destination nodes.
What the graph does to one packet of it it does to all, as long as no table changes. `follow` walks the graph
with one of them, element by element, by `Element.trace`, which does to it what `receive` would do. The walk
ends at a ToDevice, or where an element must see every packet itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from xiatb.click.packet import Packet

if TYPE_CHECKING:
    from xiatb.click.element import Element

MAX_STEPS = 256
"""Elements on a way through the graph; a packet with 20 nodes of four edges each meets fewer."""


class Trace:
    """A way through the graph, while it is walked.

    packet: one of the flow's packets, header fields changed as the graph changes them; limit: octets of the
    longest frame that goes this way; hops: how much the hop limit falls; blocked: says whether packets wait
    on the way, which later ones must not pass; send: takes frames at the end of the way, None while
    there is no end; way: the elements passed; why: what ended the walk before.
    """

    __slots__ = ("blocked", "hops", "limit", "packet", "send", "way", "why")

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.limit = 1 << 30
        self.hops = 0
        self.blocked: Callable[[], int] = _never
        self.send: Callable[[bytearray], None] | None = None
        self.way: list[Element] = []
        self.why = ""


class Tally:
    """What went a way since it was last added to the elements on it."""

    __slots__ = ("octets", "packets", "way")

    def __init__(self, way: tuple[Element, ...]) -> None:
        self.way = way
        self.packets = 0
        self.octets = 0

    def settle(self) -> None:
        """Adds it to the counters of the elements."""
        packets, octets, self.packets, self.octets = self.packets, self.octets, 0, 0
        if packets:
            for element in self.way:
                element.count_flow(packets, octets)


class Flow(NamedTuple):
    """What becomes of the packets of a flow.

    head: octets of Ethernet and XIP header together; limit: of the longest frame, 0: leave it to the graph;
    hops: how much the hop limit falls; ethernet: the header to write, 14 octets; nodes: what stands in the
    XIP header from `dnode` to the last destination node, None: as it is; send: takes the frames.
    """

    head: int
    limit: int
    hops: int
    ethernet: bytes
    nodes: bytes | None
    blocked: Callable[[], int]
    tally: Tally
    send: Callable[[bytearray], None]


def follow(source: Element, packet: Packet) -> Trace:
    """Walks the graph from output 0 of `source` with a packet that may be spoilt."""
    trace = Trace(packet)
    element: Element = source
    output: int | None = 0
    while output is not None and output < len(element.targets) and len(trace.way) < MAX_STEPS:
        trace.way.append(element)
        element, port = element.targets[output]
        output = element.trace(port, trace)
    trace.way.append(element)
    if trace.send is None:
        trace.why = f"{element.name} ({element.class_name})"
    return trace


def _never() -> int:
    """No packet waits on the way."""
    return 0
