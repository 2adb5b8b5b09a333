"""DAG addresses: immutable graphs of XIDs with prioritised out-edges.

A node is 28 bytes on the wire: the 24-byte XID key and four edge bytes in priority order (bit 7
visited, the rest the target's index, 0x7f unused). The entry has no node; its edges lie in the
edge bytes of the last node, the final intent (xia-core api/dagaddr/cpp/dagaddr.cpp:1980-2110).
Nodes are held in topological order, so what we emit also passes the stricter checks of
XIA-for-Linux (net/xia/dag.c). Text forms live in `xiatb.wire.dagtext`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xiatb.errors import WireError
from xiatb.wire.xid import XID, XidType

ENTRY = 0x7E
NO_EDGE = 0x7F
VISITED = 0x80
MAX_NODES = 20
MAX_EDGES = 4
NODE_LEN = 28

Edges = tuple[int, ...]


class DAG:
    """An address. `nodes[-1]` is the final intent; `edges[i]` and `entry` are target indices.

    Nodes come out in topological order with the intent last, whatever order they were given in.
    Two DAGs are equal when all their ordered paths are (as in xia-core), however nodes are
    numbered or shared; hashes agree with that.
    """

    __slots__ = ("nodes", "edges", "entry", "_wire", "_canonical", "_hash")
    nodes: tuple[XID, ...]
    edges: tuple[Edges, ...]
    entry: Edges
    _wire: bytes
    _canonical: tuple[Any, ...] | None
    _hash: int | None

    def __init__(self, nodes: Sequence[XID], edges: Sequence[Sequence[int]], entry: Sequence[int]) -> None:
        """Validate and normalise; WireError names the node when the graph is not a legal address.

        Legal: 1..20 nodes, at most 4 edges a node, targets in range, no cycle, every node reachable
        from the entry, no edges at the last node.
        """
        _check(nodes, edges, entry)
        order = _topological(edges)
        rank = {old: new for new, old in enumerate(order)}
        put = object.__setattr__
        put(self, "nodes", tuple(nodes[old] for old in order))
        put(self, "edges", tuple(tuple(rank[t] for t in edges[old]) for old in order))
        put(self, "entry", tuple(rank[t] for t in entry))
        put(self, "_wire", _pack(self.nodes, self.edges, self.entry))
        put(self, "_canonical", None)
        put(self, "_hash", None)

    @classmethod
    def parse(cls, text: str) -> DAG:
        """Return the DAG of its DAG, RE or URL text form; WireError names the character or node."""
        from xiatb.wire.dagtext import parse

        return parse(text)

    @classmethod
    def from_wire(cls, buf: bytes | bytearray | memoryview) -> DAG:
        """Return the DAG of n*28 bytes of nodes; visited bits are ignored. WireError if not legal."""
        raw = bytes(buf)
        count, rest = divmod(len(raw), NODE_LEN)
        if rest:
            raise WireError(f"a node list is a multiple of 28 bytes, not {len(raw)}")
        if not 0 < count <= MAX_NODES:
            raise WireError(f"a DAG has 1 to {MAX_NODES} nodes, not {count}")
        nodes = [XID.from_key(raw[at : at + 24]) for at in range(0, len(raw), NODE_LEN)]
        rows = [_unpack_edges(raw[at + 24 : at + 28], at // NODE_LEN) for at in range(0, len(raw), NODE_LEN)]
        return cls(nodes, [*rows[:-1], ()], rows[-1])

    @classmethod
    def chain(cls, *xids: XID) -> DAG:
        """Return the DAG of a plain path, `RE X1 X2 ...`."""
        last = len(xids) - 1
        return cls(xids, [(i + 1,) if i < last else () for i in range(len(xids))], (0,))

    @classmethod
    def host(cls, ad: XID, hid: XID) -> DAG:
        """Return `RE AD HID`, the locator of a host."""
        return cls.chain(ad, hid)

    @classmethod
    def service(cls, ad: XID, hid: XID, sid: XID) -> DAG:
        """Return `RE ( AD HID ) SID`: the intent first, the host that serves it as fallback."""
        return cls((ad, hid, sid), ((1,), (2,), ()), (2, 0))

    def to_wire(self) -> bytes:
        """Return the node list, 28 bytes a node, nothing marked visited."""
        return self._wire

    @property
    def intent(self) -> XID:
        """The final intent, the sink that the address is about."""
        return self.nodes[-1]

    def fallback_path(self) -> tuple[int, ...]:
        """Return the node indices from the entry to a sink along the lowest-priority edges."""
        path: list[int] = []
        edges = self.entry
        while edges:
            path.append(edges[-1])
            edges = self.edges[edges[-1]]
        return tuple(path)

    def _last_of_type(self, kind: int) -> int | None:
        found = [i for i in self.fallback_path() if self.nodes[i].type == kind]
        return found[-1] if found else None

    @property
    def intent_ad(self) -> XID | None:
        """The last AD on the fallback path, None when there is none."""
        index = self._last_of_type(XidType.AD)
        return None if index is None else self.nodes[index]

    @property
    def intent_hid(self) -> XID | None:
        """The last HID on the fallback path (may be the intent itself), None when there is none."""
        index = self._last_of_type(XidType.HID)
        return None if index is None else self.nodes[index]

    def with_intent(self, xid: XID) -> DAG:
        """Return the same graph with the final intent replaced by `xid`."""
        return DAG((*self.nodes[:-1], xid), self.edges, self.entry)

    def with_locator(self, ad: XID, hid: XID) -> DAG:
        """Return the address of the same final intent at the location AD, HID.

        The shape is kept when the DAG has a location (its intent AD and HID are replaced); an
        address without one becomes `DAG.service`, a host's own address `DAG.host`.
        """
        if self.intent == hid:
            return DAG.host(ad, hid)
        sink = len(self.nodes) - 1
        ad_at, hid_at = self._last_of_type(XidType.AD), self._last_of_type(XidType.HID)
        if ad_at is None or hid_at is None or sink in (ad_at, hid_at):
            return DAG.service(ad, hid, self.intent)
        nodes = list(self.nodes)
        nodes[ad_at], nodes[hid_at] = ad, hid
        return DAG(nodes, self.edges, self.entry)

    def __mul__(self, other: DAG | XID) -> DAG:
        """Append: every sink of `self` gets the entry edges of `other`, whose intent is the intent."""
        from xiatb.wire.dagops import append

        return append(self, DAG.chain(other) if isinstance(other, XID) else other)

    def __add__(self, other: DAG | XID) -> DAG:
        """Alternative: paths of `self` first, those of `other` as fallback, common nodes shared."""
        from xiatb.wire.dagops import union

        return union(self, DAG.chain(other) if isinstance(other, XID) else other)

    def dag_string(self) -> str:
        """Return the DAG form, one node a line, as xia-core prints it."""
        from xiatb.wire.dagtext import dag_form

        return dag_form(self)

    def re_string(self) -> str:
        """Return the RE form, or the DAG form on one line when RE cannot express the graph."""
        from xiatb.wire.dagtext import re_form

        return re_form(self)

    def url(self) -> str:
        """Return the `http://DAG...` form."""
        from xiatb.wire.dagtext import url_form

        return url_form(self)

    def _canon(self) -> tuple[Any, ...]:
        if self._canonical is None:
            object.__setattr__(self, "_canonical", _canonical(self))
        assert self._canonical is not None
        return self._canonical

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a DAG does not change")

    def __reduce__(self) -> tuple[Any, ...]:
        return (DAG, (self.nodes, self.edges, self.entry))

    def __len__(self) -> int:
        return len(self.nodes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DAG):
            return NotImplemented
        return self._wire == other._wire or self._canon() == other._canon()

    def __hash__(self) -> int:
        if self._hash is None:
            object.__setattr__(self, "_hash", hash(self._canon()))
        assert self._hash is not None
        return self._hash

    def __str__(self) -> str:
        return self.re_string()

    def __repr__(self) -> str:
        return f"DAG.parse({self.re_string()!r})"


def _check(nodes: Sequence[XID], edges: Sequence[Sequence[int]], entry: Sequence[int]) -> None:
    """Raise WireError unless the counts, degrees, targets and reachability are legal."""
    count = len(nodes)
    if not 0 < count <= MAX_NODES:
        raise WireError(f"a DAG has 1 to {MAX_NODES} nodes, not {count}")
    if len(edges) != count:
        raise WireError(f"{count} nodes but {len(edges)} edge lists")
    if edges[-1]:
        raise WireError(f"node {count - 1} is the final intent and cannot have edges")
    if not entry:
        raise WireError("the entry has no edges")
    for where, row in (("the entry", entry), *((f"node {i}", row) for i, row in enumerate(edges))):
        if len(row) > MAX_EDGES:
            raise WireError(f"{where} has {len(row)} edges, at most {MAX_EDGES} fit")
        for target in row:
            if not 0 <= target < count:
                raise WireError(f"{where} has an edge to node {target}, there are {count}")
    reached = set(entry)
    todo = list(entry)
    while todo:
        for target in edges[todo.pop()]:
            if target not in reached:
                reached.add(target)
                todo.append(target)
    if len(reached) != count:
        raise WireError(f"node {min(set(range(count)) - reached)} cannot be reached from the entry")


def _topological(edges: Sequence[Sequence[int]]) -> list[int]:
    """Return node indices so that edges point forward, staying close to the given order.

    Taking the smallest ready index leaves an ordered graph as it is and puts the last node,
    which has no edges, last. Raises WireError naming a node of a cycle.
    """
    count = len(edges)
    waiting = [0] * count
    for row in edges:
        for target in row:
            waiting[target] += 1
    order: list[int] = []
    left = set(range(count))
    while left:
        ready = [i for i in left if waiting[i] == 0]
        if not ready:
            raise WireError(f"the DAG has a cycle through or before node {min(left)}")
        node = min(ready)
        left.remove(node)
        order.append(node)
        for target in edges[node]:
            waiting[target] -= 1
    return order


def _pack(nodes: Sequence[XID], edges: Sequence[Edges], entry: Edges) -> bytes:
    """Return the wire form; the entry's edges go into the last node."""
    rows = [*edges[:-1], entry]
    return b"".join(
        xid.key + bytes(row) + b"\x7f" * (MAX_EDGES - len(row)) for xid, row in zip(nodes, rows, strict=True)
    )


def _unpack_edges(raw: bytes, node: int) -> Edges:
    """Return the targets of four edge bytes; an edge behind an unused one is never tried, so refuse it."""
    targets = [byte & 0x7F for byte in raw]
    used = [t for t in targets if t != NO_EDGE]
    if targets[: len(used)] != used:
        raise WireError(f"node {node} has an edge behind an unused one")
    return tuple(used)


def _canonical(dag: DAG) -> tuple[Any, ...]:
    """Return a form that is equal exactly for DAGs with the same ordered paths.

    Nodes with the same XID and the same continuation are one; numbers are given in post-order
    of a depth-first visit that follows priorities, so they do not depend on the node order.
    """
    number: dict[int, int] = {}
    seen: dict[tuple[bytes, Edges], int] = {}

    def visit(node: int) -> int:
        if node not in number:
            row = (dag.nodes[node].key, tuple(visit(t) for t in dag.edges[node]))
            number[node] = seen.setdefault(row, len(seen))
        return number[node]

    entry = tuple(visit(t) for t in dag.entry)
    return (entry, number[len(dag.nodes) - 1], tuple(seen))
