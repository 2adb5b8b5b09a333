"""What the mirror writes when routes, ports and neighbours change in any order, or the map is full."""

from __future__ import annotations

import random

import pytest

from xiatb.fastpath.errors import FastpathError, TableFullError
from xiatb.fastpath.mirror import BROADCAST, Mirror, PortInfo
from xiatb.fastpath.routes import NO_LIMIT, Kind, Route
from xiatb.wire.walk import DISCARD, FALLBACK, SELF, UNREACHABLE, Entry
from xiatb.wire.xid import BROADCAST_FID, XID, XidType

APPS = PortInfo(10, b"apps00", 0, internal=True)
ETH = PortInfo(11, b"eth000", 1500)
MAC, OTHER_MAC = b"mac000", b"mac001"


def key(kind: int, number: int) -> bytes:
    return XID(kind, number.to_bytes(20, "big")).key


AD, HID, GATEWAY = key(XidType.AD, 1), key(XidType.HID, 1), key(XidType.HID, 2)
SIDS = [key(XidType.SID, number) for number in range(8)]
PASS = Route(Kind.PASS)
SENT = Route(Kind.FORWARD, 11, 1, MAC, b"eth000", 1500)


class Tables:
    """An engine that only remembers, with room for so many routes."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.routes: dict[bytes, Route] = {}
        self.defaults: dict[int, Route] = {}
        self.writes = 0

    def set_route(self, key: bytes, route: Route) -> None:
        self.writes += 1
        if key not in self.routes and len(self.routes) >= self.room:
            raise TableFullError("full")
        self.routes[key] = route

    def delete_route(self, key: bytes) -> None:
        self.routes.pop(key, None)

    def set_default(self, kind: int, route: Route | None) -> None:
        self.defaults.pop(kind, None)
        if route is not None:
            self.defaults[kind] = route


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def mirror(tables: Tables) -> Mirror:
    made = Mirror(tables)
    made.set_port(0, APPS)
    made.set_port(1, ETH)
    return made


def test_a_route_waits_for_its_neighbour(tables: Tables, mirror: Mirror) -> None:
    mirror.set(AD, Entry(1, GATEWAY))
    assert tables.routes[AD] == PASS
    mirror.set_neighbour(2, GATEWAY, OTHER_MAC)
    mirror.set_neighbour(1, HID, OTHER_MAC)
    assert tables.routes[AD] == PASS
    mirror.set_neighbour(1, GATEWAY, MAC)
    assert tables.routes[AD] == SENT
    writes = tables.writes
    mirror.set_neighbour(1, GATEWAY, MAC)
    assert tables.writes == writes, "a confirmed address is nothing new"
    mirror.set_neighbour(1, GATEWAY, OTHER_MAC)
    assert tables.routes[AD] == SENT._replace(dst=OTHER_MAC)
    mirror.forget_neighbour(1, GATEWAY)
    assert tables.routes[AD] == PASS


def test_a_host_is_its_own_next_hop_but_a_default_names_none(tables: Tables, mirror: Mirror) -> None:
    mirror.set_neighbour(1, HID, MAC)
    mirror.set(HID, Entry(1))
    mirror.set_default(XidType.HID, Entry(1))
    mirror.set_default(XidType.AD, Entry(1, HID))
    assert tables.routes[HID] == SENT
    assert tables.defaults == {XidType.HID: PASS, XidType.AD: SENT}
    mirror.set_default(XidType.AD, None)
    assert tables.defaults == {XidType.HID: PASS}


def test_ports_come_change_and_go(tables: Tables, mirror: Mirror) -> None:
    mirror.set_neighbour(1, GATEWAY, MAC)
    mirror.set(AD, Entry(1, GATEWAY))
    mirror.set_port(1, ETH._replace(up=False))
    assert tables.routes[AD] == PASS
    mirror.set_port(1, PortInfo(99, b"eth001", 9000))
    assert tables.routes[AD] == Route(Kind.FORWARD, 99, 1, MAC, b"eth001", 9000)
    mirror.set_port(1, None)
    assert tables.routes[AD] == PASS
    mirror.set_port(1, ETH._replace(mtu=0))
    assert tables.routes[AD] == SENT._replace(mtu=NO_LIMIT)


def test_local_delivery(tables: Tables, mirror: Mirror) -> None:
    mirror.set(SIDS[0], Entry(SELF, deliver=0))
    mirror.set(SIDS[1], Entry(SELF, deliver=1))
    mirror.set(SIDS[2], Entry(SELF))
    assert tables.routes[SIDS[0]] == Route(Kind.SELF, 10, 0, BROADCAST, b"apps00", NO_LIMIT)
    assert tables.routes[SIDS[1]] == tables.routes[SIDS[2]] == Route(Kind.SELF)
    mirror.set_port(0, None)
    assert tables.routes[SIDS[0]] == Route(Kind.SELF)


def test_what_needs_no_neighbour(tables: Tables, mirror: Mirror) -> None:
    for port in (FALLBACK, UNREACHABLE, -5):
        mirror.set(AD, Entry(port))
        assert tables.routes[AD] == Route(Kind.FALLBACK)
    mirror.set(AD, Entry(DISCARD))
    assert tables.routes[AD] == Route(Kind.DISCARD, slot=XidType.AD)
    mirror.set(AD, Entry(1, BROADCAST_FID.key))
    assert tables.routes[AD] == SENT._replace(dst=BROADCAST)
    mirror.set(AD, Entry(0, GATEWAY))
    assert tables.routes[AD] == Route(Kind.FORWARD, 10, 0, BROADCAST, b"apps00", NO_LIMIT)
    mirror.remove(AD)
    mirror.remove(AD)
    assert not tables.routes


def test_types_that_cannot_be_mirrored_are_refused(mirror: Mirror) -> None:
    with pytest.raises(FastpathError, match="01000010"):
        mirror.set(key(0x01000010, 1), Entry(1))
    with pytest.raises(FastpathError, match="0x100 "):
        mirror.set_default(0x100, Entry(1))


def test_a_full_map_leaves_the_type_to_the_slow_path() -> None:
    tables = Tables(room=3)
    mirror = Mirror(tables)
    mirror.set_default(XidType.SID, Entry(FALLBACK))
    mirror.set(AD, Entry(SELF))
    for sid in SIDS[:5]:
        mirror.set(sid, Entry(SELF))
    assert mirror.overflow == 3 and len(tables.routes) == 3
    assert tables.defaults == {XidType.SID: PASS}
    mirror.set_default(XidType.SID, Entry(DISCARD))
    assert tables.defaults == {XidType.SID: PASS}, "still incomplete"
    mirror.set(SIDS[0], Entry(DISCARD))
    assert tables.routes[SIDS[0]] == Route(Kind.DISCARD, slot=XidType.SID), "what is in the map can change"
    mirror.remove(SIDS[4])
    mirror.remove(AD)
    assert mirror.overflow == 1 and tables.defaults == {XidType.SID: PASS}
    mirror.remove(SIDS[0])
    assert mirror.overflow == 0 and tables.defaults == {XidType.SID: Route(Kind.DISCARD, slot=XidType.SID)}
    assert set(tables.routes) == set(SIDS[1:4])


@pytest.mark.parametrize("seed", range(30))
def test_the_end_depends_on_what_is_not_on_the_way_there(seed: int) -> None:
    """After any history the tables are those of a fresh mirror that is told the final state once."""
    rng = random.Random(seed)
    room = rng.choice((4, 100))
    tables = Tables(room)
    mirror = Mirror(tables)
    keys = [AD, HID, GATEWAY, *SIDS]
    ports: dict[int, PortInfo | None] = {}
    routes: dict[bytes, Entry] = {}
    defaults: dict[int, Entry] = {}
    neighbours: dict[tuple[int, bytes], bytes] = {}
    for _ in range(300):
        kind = rng.randrange(7)
        hop = rng.choice((None, HID, GATEWAY))
        entry = Entry(rng.choice((0, 1, 2, SELF, FALLBACK)), hop, 0, rng.choice((-1, 0)))
        if kind == 0:
            ports[(index := rng.randrange(3))] = rng.choice((None, APPS, ETH, ETH._replace(up=False)))
            mirror.set_port(index, ports[index])
        elif kind in (1, 2):
            routes[(chosen := rng.choice(keys))] = entry
            mirror.set(chosen, entry)
        elif kind == 3:
            routes.pop(chosen := rng.choice(keys), None)
            mirror.remove(chosen)
        elif kind == 4:
            place = rng.randrange(3), rng.choice((HID, GATEWAY))
            neighbours[place] = rng.choice((MAC, OTHER_MAC))
            mirror.set_neighbour(*place, neighbours[place])
        elif kind == 5:
            place = rng.randrange(3), rng.choice((HID, GATEWAY))
            neighbours.pop(place, None)
            mirror.forget_neighbour(*place)
        else:
            defaults[XidType.SID] = entry
            mirror.set_default(XidType.SID, entry)
    fresh_tables = Tables()
    fresh = Mirror(fresh_tables)
    for index, port in ports.items():
        fresh.set_port(index, port)
    for chosen, entry in routes.items():
        fresh.set(chosen, entry)
    for kind, entry in defaults.items():
        fresh.set_default(kind, entry)
    for place, mac in neighbours.items():
        fresh.set_neighbour(*place, mac)
    missing = set(fresh_tables.routes) - set(tables.routes)
    assert mirror.overflow == len(missing) == max(0, len(routes) - room)
    assert tables.routes == {name: fresh_tables.routes[name] for name in tables.routes}
    for kind in (XidType.AD, XidType.HID, XidType.SID):
        incomplete = any(name[3] == kind for name in missing)
        assert tables.defaults.get(kind) == (PASS if incomplete else fresh_tables.defaults.get(kind))
