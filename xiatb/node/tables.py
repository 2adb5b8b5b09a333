"""The node's hand on the route tables and neighbour tables of its Click graph.

Elements are found by their fixed flattened names (`core/rt_AD`, ..., `lc1/xarpq`). A graph that a
user wrote may leave some out: then those routes are passed over, and the log says so once.
"""

from __future__ import annotations

from typing import Any

from xiatb.click.graph import Router
from xiatb.node.context import write_log
from xiatb.node.control_protocol import Json
from xiatb.wire.walk import DISCARD, FALLBACK, SELF, UNREACHABLE, Entry
from xiatb.wire.xid import XID, XidType, type_name

TABLE_TYPES = (XidType.AD, XidType.HID, XidType.SID, XidType.CID, XidType.IP, XidType.FID)
_SPECIAL = {DISCARD: "discard", SELF: "self", UNREACHABLE: "unreachable", FALLBACK: "fallback"}


class Tables:
    """Route tables by XID type and XARP tables by port."""

    def __init__(self, router: Router) -> None:
        self._routes: dict[int, Any] = {}
        self._router = router
        self._missing: set[str] = set()
        for kind in TABLE_TYPES:
            element = router.elements.get(f"core/rt_{kind.name}")
            if element is not None:
                self._routes[int(kind)] = element

    def _table(self, key: bytes) -> Any:
        kind = int.from_bytes(key[:4], "big")
        table = self._routes.get(kind)
        if table is None:
            self._complain(f"core/rt_{type_name(kind)}")
        return table

    def _complain(self, name: str) -> None:
        if name not in self._missing:
            self._missing.add(name)
            write_log("warning", f"this node's graph has no element {name}: what should go there is left out")

    def set(self, key: bytes, entry: Entry) -> None:
        """Puts the route of a 24-byte XID key, in place of any earlier one."""
        table = self._table(key)
        if table is not None:
            table.set(key, entry)

    def remove(self, key: bytes) -> None:
        """Takes a route out; harmless when there is none."""
        table = self._table(key)
        if table is not None and key in table.table:
            table.remove(key)

    def set_default(self, kind: XidType, entry: Entry | None) -> None:
        """Sets the default route of an XID type; None takes it away."""
        table = self._routes.get(int(kind))
        if table is None:
            self._complain(f"core/rt_{kind.name}")
        else:
            table.default = entry

    def set_neighbour(self, port: int, hid_key: bytes, mac: bytes) -> None:
        """Tells the line card of `port` a neighbour's MAC, so that XARP need not ask."""
        querier: Any = self._router.elements.get(f"lc{port}/xarpq")
        if querier is None:
            self._complain(f"lc{port}/xarpq")
        else:
            querier.insert(hid_key, mac)

    def forget_neighbour(self, port: int, hid_key: bytes) -> None:
        """Drops a neighbour's MAC from the line card of `port`."""
        querier: Any = self._router.elements.get(f"lc{port}/xarpq")
        if querier is not None:
            querier.forget(hid_key)

    def set_own_mac(self, port: int, mac: bytes) -> None:
        """The interface of `port` has another MAC (6 bytes) now."""
        for name in ("xarpq", "xarpr"):
            element: Any = self._router.elements.get(f"lc{port}/{name}")
            if element is not None:
                element.mac = mac
        querier: Any = self._router.elements.get(f"lc{port}/xarpq")
        if querier is not None:
            for key, neighbour in list(querier.neighbours.items()):
                querier.insert(key, neighbour.mac)

    def set_mtu(self, port: int, mtu: int) -> None:
        """The interface of `port` takes XIP packets of `mtu` octets now."""
        limit: Any = self._router.elements.get(f"lc{port}/mtu")
        if limit is not None:
            limit.set_mtu(str(mtu))

    def describe(self) -> Json:
        """All tables as JSON: `{"AD": [{"xid", "port", "nexthop", "flags", "deliver"}, ...], ...}`."""
        found: Json = {}
        for kind, table in self._routes.items():
            rows = [_row(str(XID.from_key(key)), entry) for key, entry in sorted(table.table.items())]
            if table.default is not None:
                rows.append(_row("-", table.default))
            found[type_name(kind)] = rows
        return found


def _row(name: str, entry: Entry) -> Json:
    return {
        "xid": name,
        "port": _SPECIAL.get(entry.port, entry.port),
        "nexthop": None if entry.nexthop is None else str(XID.from_key(entry.nexthop)),
        "flags": entry.flags,
        "deliver": entry.deliver,
    }
