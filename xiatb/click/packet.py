"""The packet that travels through a Click graph: one mutable frame and its annotations."""

from __future__ import annotations

ETHER_LEN = 14
"""Octets of an Ethernet header; the XIP header of a frame begins there."""

NODE_PORT = -1
"""`port` of packets that the node itself made, `out` of packets that are for the node itself."""

# Why a packet is on an error path (annotation `reason`); the XCMP element turns it into a message.
REASON_NONE = 0
REASON_UNREACHABLE = 1  # no edge of the current node can be followed
REASON_HLIM = 2  # hop limit used up
REASON_TOO_BIG = 3  # larger than the port's MTU, which is in `value`
REASON_NEIGHBOUR = 4  # the next hop does not answer XARP


class Packet:
    """A frame and what the graph knows about it.

    data: the whole frame, from the Ethernet header on; changed in place.
    net: offset of the XIP header in `data`.
    port: index of the port it came in by, -1 when the node made it.
    out: index of the port it leaves by, -1 when it is for the node itself.
    path: which edge of the current DAG node is being tried, 0..3.
    nexthop: 24-byte key of the neighbour to resolve by XARP, None when there is none.
    reason, value: why it is on an error path (REASON_*), and a number that goes with it (the MTU).
    steps: how many XIDs of its DAG this node has already recognised as its own.
    ts: time of arrival, seconds of the context's clock; 0.0 unless an element needs it.
    """

    __slots__ = ("data", "net", "nexthop", "out", "path", "port", "reason", "steps", "ts", "value")

    def __init__(self, data: bytearray, net: int = ETHER_LEN, port: int = NODE_PORT) -> None:
        self.data = data
        self.net = net
        self.port = port
        self.out = NODE_PORT
        self.path = 0
        self.nexthop: bytes | None = None
        self.reason = REASON_NONE
        self.value = 0
        self.steps = 0
        self.ts = 0.0

    @classmethod
    def from_xip(cls, xip: bytes, port: int = NODE_PORT) -> Packet:
        """A packet whose XIP part is `xip`, behind 14 zero octets that leave room for Ethernet."""
        data = bytearray(ETHER_LEN)
        data += xip
        return cls(data, ETHER_LEN, port)

    @property
    def xip(self) -> bytes:
        """The XIP packet: everything from the network header on."""
        return bytes(memoryview(self.data)[self.net :])

    def clone(self) -> Packet:
        """An independent copy: its own octets, the same annotations."""
        other = Packet(bytearray(self.data), self.net, self.port)
        other.out = self.out
        other.path = self.path
        other.nexthop = self.nexthop
        other.reason = self.reason
        other.value = self.value
        other.steps = self.steps
        other.ts = self.ts
        return other

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"<Packet {len(self.data)} octets, port {self.port}, out {self.out}>"
