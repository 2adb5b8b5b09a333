"""Shortest paths over the link-state database, as pure functions (Dijkstra 1959).

Ids are the 20 bytes of a HID or an AD. Only links that both ends advertise count.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple

Graph = Mapping[bytes, Mapping[bytes, int]]


class Reach(NamedTuple):
    """How far a router is and which neighbour of ours leads there (itself when adjacent)."""

    distance: int
    first: bytes


class Border(NamedTuple):
    """An adjacency between ADs: router `hid` of `ad` to router `peer` of `peer_ad`, at `cost`."""

    ad: bytes
    hid: bytes
    peer_ad: bytes
    peer: bytes
    cost: int


class Exit(NamedTuple):
    """Where packets for an AD leave ours: border router `hid`, whose neighbour is `peer`."""

    hid: bytes
    peer: bytes
    cost: int


def inside(me: bytes, graph: Graph) -> dict[bytes, Reach]:
    """Return the routers of our AD that can be reached from `me` (without `me` itself).

    `graph` maps a router to its neighbours and costs as it advertises them. Ties go to the
    smallest first hop, so that the outcome depends on the graph alone.
    """
    done: dict[bytes, Reach] = {}
    heap: list[tuple[int, bytes, bytes]] = [(0, b"", me)]
    while heap:
        distance, first, node = heapq.heappop(heap)
        if node in done:
            continue
        done[node] = Reach(distance, first)
        for neighbour, cost in graph.get(node, {}).items():
            if neighbour not in done and node in graph.get(neighbour, {}):
                heapq.heappush(heap, (distance + cost, first or neighbour, neighbour))
    del done[me]
    return done


def confirmed(borders: Iterable[Border]) -> list[Border]:
    """Return the adjacencies that the router at the other end advertises too."""
    every = list(borders)
    ends = {(b.ad, b.hid, b.peer_ad, b.peer) for b in every}
    return [b for b in every if (b.peer_ad, b.peer, b.ad, b.hid) in ends and b.ad != b.peer_ad]


def exits(
    me: bytes, my_ad: bytes, borders: Iterable[Border], reach: Mapping[bytes, Reach]
) -> dict[bytes, Exit]:
    """Return for each other AD that can be reached through which border router packets leave.

    `borders` are confirmed adjacencies, `reach` is what `inside` gave. The path of least cost
    between ADs is taken (never back through our own), among equals the border that is nearest
    inside our AD. All routers of an AD agree on the first criterion and the second shrinks on
    the way, so there is no loop.
    """
    costs: dict[bytes, dict[bytes, int]] = {}
    ours: dict[bytes, list[Border]] = {}
    for b in borders:
        if b.ad == my_ad:
            if b.hid == me or b.hid in reach:
                ours.setdefault(b.peer_ad, []).append(b)
        elif b.peer_ad != my_ad:
            row = costs.setdefault(b.ad, {})
            row[b.peer_ad] = min(b.cost, row.get(b.peer_ad, b.cost))
    total = {ad: min(b.cost for b in there) for ad, there in ours.items()}
    via = {ad: frozenset((ad,)) for ad in ours}
    _spread(costs, total, via)
    return {ad: _nearest(me, [b for first in via[ad] for b in _cheapest(ours[first])], reach) for ad in via}


def _spread(costs: Graph, total: dict[bytes, int], via: dict[bytes, frozenset[bytes]]) -> None:
    """Dijkstra from the neighbour ADs in `total`; `via` collects the first ADs of all equal paths."""
    done: set[bytes] = set()
    heap = [(cost, ad) for ad, cost in total.items()]
    heapq.heapify(heap)
    while heap:
        cost, ad = heapq.heappop(heap)
        if ad in done:
            continue
        done.add(ad)
        for further, more in costs.get(ad, {}).items():
            new = cost + more
            if further not in total or new < total[further]:
                total[further], via[further] = new, via[ad]
                heapq.heappush(heap, (new, further))
            elif new == total[further] and further not in done:
                via[further] |= via[ad]


def _cheapest(borders: list[Border]) -> list[Border]:
    least = min(b.cost for b in borders)
    return [b for b in borders if b.cost == least]


def _nearest(me: bytes, borders: list[Border], reach: Mapping[bytes, Reach]) -> Exit:
    """Return the border nearest to `me`, then the one of the smallest ids."""

    def order(b: Border) -> tuple[int, bytes, bytes]:
        return (0 if b.hid == me else reach[b.hid].distance, b.hid, b.peer)

    best = min(borders, key=order)
    return Exit(best.hid, best.peer, best.cost)
