"""From the link-state database to route-table entries.

A router gets routes to the HIDs of the routers of its AD, to the hosts attached to any of them
(the attachment with the highest sequence number of the host counts), and to the other ADs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from xiatb.node.adjacency import Adjacencies
from xiatb.node.lsa import AdLink, Link, Lsa, LsaType
from xiatb.node.membership import Membership, MembershipCache
from xiatb.node.spf import Border, confirmed, exits, inside
from xiatb.wire.walk import Entry
from xiatb.wire.xid import XID, XidType


class Local(NamedTuple):
    """A host attached here: its port and the sequence number of its JOIN."""

    port: int
    seq: int


class Attached(NamedTuple):
    """The newest attachment known of a host: the sequence number of its JOIN and the router's HID id."""

    seq: int
    router: bytes


def hid_key(hid: bytes) -> bytes:
    """Return the 24-byte route-table key of a 20-byte HID id."""
    return XID(XidType.HID, hid).key


def host_entry(port: int, hid: bytes) -> Entry:
    """Return the route to a host that is attached at `port`."""
    return Entry(port, hid_key(hid))


def own_links(adjacencies: Adjacencies, ad: XID) -> list[Link]:
    """Return our usable links to routers of `ad`, our own AD, the cheapest of parallel ones."""
    best: dict[bytes, int] = {}
    for n in adjacencies.up():
        if n.member.ad == ad:
            cost = adjacencies.cost(n.port)
            best[n.member.hid.id] = min(cost, best.get(n.member.hid.id, cost))
    return [Link(hid, cost) for hid, cost in best.items()]


def own_adlinks(adjacencies: Adjacencies, ad: XID) -> list[AdLink]:
    """Return our usable links to routers of other ADs, the cheapest of parallel ones."""
    best: dict[tuple[bytes, bytes], int] = {}
    for n in adjacencies.up():
        if n.member.ad != ad:
            there = (n.member.ad.id, n.member.hid.id)
            cost = adjacencies.cost(n.port)
            best[there] = min(cost, best.get(there, cost))
    return [AdLink(*there, cost) for there, cost in best.items()]


def newest_attachments(lsas: Iterable[Lsa]) -> dict[bytes, Attached]:
    """Return for each attached host (HID id) where it joined last."""
    newest: dict[bytes, Attached] = {}
    for lsa in lsas:
        join = lsa.attachment
        if join is not None:
            known = newest.get(lsa.object)
            if known is None or join.seq > known.seq:
                newest[lsa.object] = Attached(join.seq, lsa.origin)
    return newest


class RouteComputer:
    """Computes the whole set of routes of the router `me` from database and adjacencies."""

    def __init__(self, me: Membership, adjacencies: Adjacencies, cache: MembershipCache) -> None:
        self._me, self._adjacencies, self._cache = me, adjacencies, cache

    def compute(self, lsas: Iterable[Lsa], local: dict[bytes, Local]) -> dict[bytes, Entry]:
        """Return key -> Entry; `local` are the hosts attached here, by HID id."""
        me, ad = self._me.hid.id, self._me.ad
        graph: dict[bytes, dict[bytes, int]] = {}
        borders = [
            Border(ad.id, me, link.ad, link.hid, link.cost) for link in own_adlinks(self._adjacencies, ad)
        ]
        attached: list[Lsa] = []
        for lsa in lsas:
            if lsa.type == LsaType.ATTACH:
                attached.append(lsa)
            elif lsa.origin == me:
                continue  # what we know of ourselves is fresher than what we told
            elif lsa.type == LsaType.LINKS:
                graph.setdefault(lsa.origin, {}).update(lsa.links)
            else:
                origin = self._cache.check(lsa.credentials).ad.id
                borders += [Border(origin, lsa.origin, b.ad, b.hid, b.cost) for b in lsa.adlinks]
        graph[me] = dict(own_links(self._adjacencies, ad))
        reach = inside(me, graph)
        ports = self._ports()
        to = {r: Entry(ports[way.first], hid_key(way.first)) for r, way in reach.items()}
        routes = {hid_key(router): entry for router, entry in to.items()}
        for host, place in newest_attachments(attached).items():
            if place.router != me and place.router in to and host not in to:
                routes[hid_key(host)] = to[place.router]
        for host, here in local.items():
            routes[hid_key(host)] = host_entry(here.port, host)
        for other, leave in exits(me, ad.id, confirmed(borders), reach).items():
            entry = to[leave.hid] if leave.hid != me else Entry(ports[leave.peer], hid_key(leave.peer))
            routes[XID(XidType.AD, other).key] = entry
        return routes

    def _ports(self) -> dict[bytes, int]:
        """Return the cheapest port to each neighbour router (HID id), the lowest among equals."""
        best: dict[bytes, tuple[int, int]] = {}
        for n in self._adjacencies.up():
            here = (self._adjacencies.cost(n.port), n.port)
            best[n.member.hid.id] = min(here, best.get(n.member.hid.id, here))
        return {hid: port for hid, (_, port) in best.items()}
