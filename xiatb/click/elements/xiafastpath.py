"""Forwards packets of flows whose way through the graph is known, without going it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from xiatb.click.args import Arg, to_positive
from xiatb.click.context import Context
from xiatb.click.element import Element, ReadHandler, WriteHandler, listing, shows, zeroes
from xiatb.click.errors import HandlerError
from xiatb.click.flows import Flow, Tally, Trace, follow
from xiatb.click.packet import ETHER_LEN, Packet

_XIP = b"\xc0\xde\x01"
"""Ethertype and XIP version: octets 12 to 14 of a frame."""
_HEAD = ETHER_LEN + 8
MAX_NODES = 20
"""Destination nodes of the packets that CheckXIAHeader lets through."""
_DNODE = ETHER_LEN + 5
"""Where `dnode`, `snode`, `last` and the destination nodes begin: the octets that tell a flow."""


class XIAFastPath(Element):
    """Behind FromDevice: remembers what the graph does to the packets of a flow, does it to the next ones.

    A flow is what came in here with the same numbers of nodes, last visited node and destination nodes.
    Its second packet is followed through the graph, for CAPACITY flows; whatever of the flow comes later
    gets Ethernet header, hop limit and visited marks at once and goes to its ToDevice. The counters of the
    elements on the way are brought up to date before a handler is read. Every change of a table or of a
    handler makes all be forgotten.

    A packet takes the graph when its hop limit would be used up, it is too big or padded, or others wait
    in the queue on its way; so does a whole flow that ends in the node, or with an element on its way that
    must see every packet: Counter, Print, RandomSample, Tee, ToDump, a shaper, an element of one's own
    without `trace`. The handler `aside` names those elements. The idea is xia-core's (xiafastpath.cc).
    """

    __slots__ = (
        "aside", "capacity", "enabled", "flows", "hits", "passed", "seen", "slow", "source", "tallies",
    )  # fmt: skip
    PROCESSING = "push"
    ARGS = (Arg("CAPACITY", to_positive, "flows remembered", 4096),)
    capacity: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the capacity."""
        super().configure(args)
        self.hits = self.passed = 0
        self.enabled = True
        self.flows: dict[bytes, Flow] = {}
        self.seen: set[bytes] = set()
        self.aside: Counter[str] = Counter()
        self.tallies: dict[tuple[Element, ...], Tally] = {}
        self.source: Element | None = None
        self.slow: Callable[[bytearray], None]

    def initialize(self, ctx: Context) -> None:
        """Be told when something changes."""
        self.sched.flow_caches.append(self)

    def receive(self, p: Packet) -> None:
        """A packet for the graph."""
        self.out0(p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """Nothing is done."""
        return 0

    def shortcut(self, source: Any) -> Callable[[list[bytearray]], None] | None:
        """Takes the frames of one FromDevice: what is remembered holds for those only."""
        if self.source is not None:
            return None
        self.source, self.slow = source, source.receive_frame
        source.out0 = self.out0  # packets that need the graph need not stop here
        return self.receive_frames

    def receive_frames(self, frames: list[bytearray]) -> None:
        """Frames came in together; they are ours from now on."""
        if not self.enabled:
            self.passed += len(frames)
            for data in frames:
                self.slow(data)
            return
        flow_of = self.flows.get
        hits = 0
        for data in frames:
            try:
                flow = flow_of(bytes(data[_DNODE : _DNODE + 3 + 28 * data[_DNODE]]))
            except IndexError:
                flow = None
            if flow is None:
                self._miss(data)
                continue
            head, limit, hops, ethernet, nodes, blocked, tally, send = flow
            size = len(data)
            if (
                head + (data[16] << 8) + data[17] != size
                or size > limit
                or data[18] <= hops
                or data[12:15] != _XIP
                or blocked()
            ):
                self.passed += 1
                self.slow(data)
                continue
            data[18] -= hops
            data[:ETHER_LEN] = ethernet
            if nodes is not None:
                data[_DNODE : _DNODE + len(nodes)] = nodes
            tally.packets += 1
            tally.octets += size
            hits += 1
            send(data)
        self.hits += hits

    def _miss(self, data: bytearray) -> None:
        """A packet of a flow that is not known, or a frame that is no XIP packet."""
        self.passed += 1
        if data[12:15] == _XIP and _whole(data):
            key = bytes(data[_DNODE : _DNODE + 3 + 28 * data[_DNODE]])
            # A flow of one packet, as a scan makes them by the thousand, is not worth the trouble.
            if key in self.seen:
                self._learn(key, data)
            else:
                if len(self.seen) >= self.capacity:
                    self.seen.clear()
                self.seen.add(key)
        self.slow(data)

    def _learn(self, key: bytes, data: bytearray) -> None:
        """See where a packet of the flow goes."""
        assert self.source is not None
        if max(len(self.flows), len(self.tallies)) >= self.capacity:
            self.forget()
            self.settle()
            self.tallies.clear()
        self.seen.discard(key)
        trace = follow(self.source, Packet(data.copy()))
        head = _HEAD + 28 * (key[0] + key[1])
        if trace.send is None:
            self.aside[trace.why] += 1
            self.flows[key] = Flow(head, 0, 0, b"", None, trace.blocked, Tally(()), self.slow)
            return
        way = tuple(trace.way)
        tally = self.tallies.get(way)
        if tally is None:
            tally = self.tallies[way] = Tally(way)
        after = trace.packet.data
        nodes = bytes(after[_DNODE : _DNODE + len(key)])
        self.flows[key] = Flow(
            head,
            trace.limit,
            trace.hops,
            bytes(after[:ETHER_LEN]),
            None if nodes == key else nodes,
            trace.blocked,
            tally,
            trace.send,
        )

    def forget(self) -> None:
        """The graph may do something else from now on."""
        if self.flows:
            self.flows.clear()
            self.aside.clear()

    def settle(self) -> None:
        """Bring the counters of the elements that were passed by up to date."""
        for tally in self.tallies.values():
            tally.settle()

    def _enable(self, text: str) -> None:
        word = text.strip().lower()
        if word not in ("0", "1", "true", "false"):
            raise HandlerError(f"'{text.strip()}' is neither 0 nor 1")
        self.enabled = word in ("1", "true")

    READ = {
        "hits": shows("hits", "packets that did not need the graph"),
        "passed": shows("passed", "frames left to the graph"),
        "count": ReadHandler("number of flows that are known", lambda fast, _: str(len(fast.flows))),
        "aside": ReadHandler(
            "elements because of which flows are left to the graph, and how many flows, one a line",
            lambda fast, _: listing(f"{why}\t{count}" for why, count in sorted(fast.aside.items())),
        ),
        "enabled": ReadHandler("1, or 0 when all goes by the graph", lambda fast, _: str(int(fast.enabled))),
    }
    WRITE = {
        "enabled": WriteHandler("0 leaves everything to the graph", lambda fast, value: fast._enable(value)),
        "reset": zeroes("hits", "passed"),
    }


def _whole(data: bytearray) -> bool:
    """Whether the frame is as long as its header says; another one tells nothing about its flow."""
    size = len(data)
    if size < _HEAD or data[_DNODE] > MAX_NODES:
        return False
    return size == _HEAD + 28 * (data[19] + data[20]) + (data[16] << 8) + data[17]
