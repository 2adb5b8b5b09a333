"""Operators that build DAGs from DAGs, with the meaning of xia-core's `Graph` (dagaddr.hpp).

`a * b` appends, `a + b` adds b as an alternative: `(ad * hid + sid) * cid` and the like. While
xia-core shares nodes by object identity, immutable DAGs share them by value.
"""

from __future__ import annotations

from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID


def append(first: DAG, second: DAG) -> DAG:
    """Return the DAG that goes through `first` and then to `second` (xia-core `operator*`).

    Every sink of `first` gets the entry edges of `second`. Raises WireError past 20 nodes.
    """
    shift = len(first.nodes)
    entry = tuple(t + shift for t in second.entry)
    head = [row or entry for row in first.edges]
    tail = [tuple(t + shift for t in row) for row in second.edges]
    return DAG(first.nodes + second.nodes, head + tail, first.entry)


def union(first: DAG, second: DAG) -> DAG:
    """Return the DAG that tries `first` and falls back to `second` (xia-core `operator+`).

    Nodes of the same XID are shared, edges of `first` keep priority. The final intent is that of
    `first`; when `second` ends elsewhere, its end is a second sink until something is appended.
    Raises WireError when sharing makes a cycle, a fifth edge or a 21st node.
    """
    same = _shared(first, second)
    nodes: list[XID] = list(first.nodes)
    place: list[int] = []
    for i, xid in enumerate(second.nodes):
        if i in same:
            place.append(same[i])
        else:
            place.append(len(nodes))
            nodes.append(xid)
    edges = [list(row) for row in first.edges] + [[] for _ in range(len(nodes) - len(first.nodes))]
    entry = list(first.entry)
    _merge(entry, [place[t] for t in second.entry])
    for i, row in enumerate(second.edges):
        _merge(edges[place[i]], [place[t] for t in row])
    sink = len(first.nodes) - 1
    return _with_sink(nodes, edges, entry, place[-1] if edges[sink] else sink)


def served(host: DAG, sid: XID) -> DAG:
    """Return the address of service `sid` on the host with locator `host`: the SID first, the locator's own
    path to the host as fallback (`DAG.service` for `RE AD HID`). Raises WireError past 20 nodes or 4 edges.
    """
    sink = len(host.nodes)
    return DAG((*host.nodes, sid), (*host.edges[:-1], (sink,), ()), (sink, *host.entry))


def behind(gateway: XID, host: DAG) -> DAG:
    """Return the locator `host` with a 4ID fallback: `RE ( IP ) AD HID`, where the packet goes over IP to
    `gateway` (type IP) when the first node cannot be reached. Raises WireError as the DAG itself does."""
    edges = tuple(tuple(target + 1 for target in row) for row in host.edges)
    entry = tuple(target + 1 for target in host.entry)
    return DAG((gateway, *host.nodes), (entry, *edges), (*entry, 0))


def _merge(into: list[int], more: list[int]) -> None:
    """Append the targets that are not there yet, in order."""
    for target in more:
        if target not in into:
            into.append(target)


def _with_sink(nodes: list[XID], edges: list[list[int]], entry: list[int], sink: int) -> DAG:
    """Return the DAG whose final intent is node `sink` (which is moved to the end)."""
    order = [i for i in range(len(nodes)) if i != sink] + [sink]
    rank = {old: new for new, old in enumerate(order)}
    return DAG(
        [nodes[old] for old in order],
        [[rank[t] for t in edges[old]] for old in order],
        [rank[t] for t in entry],
    )


def _shared(first: DAG, second: DAG) -> dict[int, int]:
    """Return which nodes of `second` are the same as which of `first`.

    An XID that is unique on both sides is the same node. One that stands in a DAG several times
    (a rendezvous address) is matched by what follows it.
    """
    numbers: dict[tuple[bytes, tuple[int, ...]], int] = {}
    first_tails, second_tails = _tails(first, numbers), _tails(second, numbers)
    same: dict[int, int] = {}
    for i, xid in enumerate(second.nodes):
        there = [j for j, other in enumerate(first.nodes) if other == xid]
        if len(there) > 1 or second.nodes.count(xid) > 1:
            taken = set(same.values())
            there = [j for j in there if j not in taken and first_tails[j] == second_tails[i]]
        if there:
            same[i] = there[0]
    return same


def _tails(dag: DAG, numbers: dict[tuple[bytes, tuple[int, ...]], int]) -> list[int]:
    """Return a number for each node, the same exactly for nodes with the same paths behind them."""
    found = [0] * len(dag.nodes)
    for i in reversed(range(len(dag.nodes))):
        row = (dag.nodes[i].key, tuple(found[t] for t in dag.edges[i]))
        found[i] = numbers.setdefault(row, len(numbers))
    return found
