"""The routes for XIDs of one principal type."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.context import Context, Timer
from xiatb.click.element import Element, ReadHandler, Receiver, WriteHandler, listing, shows
from xiatb.click.errors import ConfigError, HandlerError
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet
from xiatb.errors import WireError
from xiatb.wire.walk import DISCARD, FALLBACK, SELF, UNREACHABLE, Entry
from xiatb.wire.xid import XID, parse_type

_PORTS = {
    "DISCARD": DISCARD, "SELF": SELF, "LOCALHOST": SELF, "DESTINED_FOR_LOCALHOST": SELF,
    "UNREACHABLE": UNREACHABLE, "FALLBACK": FALLBACK,
}  # fmt: skip
MAX_GENERATED = 5_000_000
SLICE = 1024
"""Routes generated at once, in milliseconds; packets and timers get their turn in between."""
RouteWatcher = Callable[[bytes | int, Entry | None], None]
"""Told of every change of a table: a 24-byte key or, for the default, the type; None: that route is gone."""


def _principal(text: str) -> int:
    try:
        return parse_type(to_text(text))
    except WireError as error:
        raise ConfigError(error.message) from None


class XIAXIDRouteTable(Element):
    """Looks the XID that the present edge leads to (see XIASelectPath) up in the routes of its TYPE.

    Output 0: forward; annotation `out` is the route's port, `nexthop` the neighbour that XARP resolves
    (the XID itself when the route names none). Output 1: the XID is one of this node's own; `out` is
    the port that leads to its owner, -1 the node. Output 2: no route, or one to FALLBACK or
    UNREACHABLE; the next edge is to be tried. A route to DISCARD drops.

    A ROUTE is `XID PORT [NEXTHOP [FLAGS [DELIVER]]]`, separated by blanks or commas; XID is `TYPE:hex`,
    `self` for the node's own HID, or `-` for everything that has no route of its own; PORT is a number
    or SELF, DISCARD, UNREACHABLE, FALLBACK (-2, -1, -6, -7, as in xia-core).
    """

    __slots__ = (
        "_default", "changed", "drops", "enabled", "fallback", "generating", "live", "local", "route",
        "slicing", "switched", "table", "type",
    )  # fmt: skip
    PORTS = "1/3"
    PROCESSING = "push"
    ARGS = (
        Arg("TYPE", _principal, "principal type, for example HID", REQUIRED),
        Arg("ROUTE", to_text, "a route that is there from the start", (), rest=True),
    )
    type: int
    route: list[str]

    def configure(self, args: dict[str, Any]) -> None:
        """Check the routes that are there from the start."""
        super().configure(args)
        self.table: dict[bytes, Entry] = {}
        self._default: Entry | None = None
        self.changed: RouteWatcher | None = None
        self.switched: Callable[[], None] | None = None
        self.enabled = True
        self.live = False
        self.generating: deque[tuple[int, Entry]] = deque()
        self.slicing: Timer | None = None
        self.drops = 0
        for index, text in enumerate(self.route):
            try:
                self._add(text, own=bytes(24))
            except HandlerError as error:
                raise ConfigError(f"ROUTE: {error.message}", index + 1) from None
        self.table.clear()

    def initialize(self, ctx: Context) -> None:
        """Enter the routes, now that `self` is known."""
        self.live = True
        self.local: Receiver = self.outs[1]
        self.fallback: Receiver = self.outs[2]
        for text in self.route:
            self._add(text, own=ctx.hid)

    def cleanup(self) -> None:
        """Stop generating."""
        if self.slicing is not None:
            self.slicing.cancel()

    def receive(self, p: Packet) -> None:
        """Look up and send on."""
        data, net = p.data, p.net
        last = data[net + 7]
        edge = net + 4 + 28 * data[net + 5] if last == 0x7E else net + 32 + 28 * last
        node = net + 8 + 28 * (data[edge + p.path] & 0x7F)
        key = bytes(data[node : node + 24])
        entry = self.table.get(key, self._default)
        if entry is None or not self.enabled:
            self.fallback(p)
            return
        port, nexthop, _, deliver = entry
        if port >= 0:
            p.out = port
            p.nexthop = key if nexthop is None else nexthop
            self.out0(p)
        elif port == SELF:
            p.out = deliver
            self.local(p)
        elif port == DISCARD:
            self.drops += 1
        else:
            self.fallback(p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """As receive; what is discarded is counted one by one."""
        p = trace.packet
        data, net = p.data, p.net
        last = data[net + 7]
        edge = net + 4 + 28 * data[net + 5] if last == 0x7E else net + 32 + 28 * last
        node = net + 8 + 28 * (data[edge + p.path] & 0x7F)
        key = bytes(data[node : node + 24])
        entry = self.table.get(key, self._default)
        if entry is None or not self.enabled or entry.port in (FALLBACK, UNREACHABLE):
            return 2
        if entry.port >= 0:
            p.out, p.nexthop = entry.port, entry.nexthop or key
            return 0
        p.out = entry.deliver
        return 1 if entry.port == SELF else None

    # -- for the node ---------------------------------------------------------------------------
    def watch(self, changed: RouteWatcher, switched: Callable[[], None]) -> None:
        """Tell `changed` every route from now on, those that are there first, and call `switched` when the
        handler `enabled` was written to.
        """
        self.changed, self.switched = changed, switched
        for key, entry in self.table.items():
            changed(key, entry)
        changed(self.type, self._default)

    @property
    def default(self) -> Entry | None:
        """The route of every XID that has none of its own."""
        return self._default

    @default.setter
    def default(self, entry: Entry | None) -> None:
        self._default = entry
        self._tell(self.type, entry)

    def _tell(self, target: bytes | int, entry: Entry | None) -> None:
        """A route has changed."""
        if self.live:
            self.forget_flows()
        if self.changed is not None:
            self.changed(target, entry)

    def set(self, key: bytes, entry: Entry) -> None:
        """Route the XID with this key (24 octets); replaces what was there. HandlerError for another type."""
        if len(key) != 24 or int.from_bytes(key[:4], "big") != self.type:
            raise HandlerError(f"{key.hex()} is not the key of an XID of type 0x{self.type:x}")
        known = self.table.get(key) == entry
        self.table[key] = entry
        if known and self.changed is not None:
            self.changed(key, entry)
        elif not known:
            self._tell(key, entry)

    def remove(self, key: bytes) -> None:
        """Forget the route of this XID; nothing happens when there is none."""
        if self.table.pop(key, None) is not None:
            self._tell(key, None)

    # -- handlers -------------------------------------------------------------------------------
    def _add(self, text: str, own: bytes = b"", fresh: bool = False) -> None:
        """`XID PORT [NEXTHOP [FLAGS [DELIVER]]]` by blanks or commas."""
        words = text.split(",") if "," in text else text.split()
        words = [word.strip() for word in words]
        if not 2 <= len(words) <= 5:
            raise HandlerError(f"'{text.strip()}' is not 'XID PORT [NEXTHOP [FLAGS [DELIVER]]]'")
        nexthop = _key(words[2]) if len(words) > 2 and words[2] not in ("", "-") else None
        flags = _number(words[3]) if len(words) > 3 and words[3] else 0
        deliver = _number(words[4]) if len(words) > 4 and words[4] else -1
        entry = Entry(_port(words[1]), nexthop, flags, deliver)
        if words[0] == "-":
            if fresh and self.default is not None:
                raise HandlerError("there is a default route already")
            self.default = entry
            return
        key = own or self.ctx.hid if words[0] == "self" else _key(words[0])
        if fresh and key in self.table:
            raise HandlerError(f"there is a route for {words[0]} already")
        if own == bytes(24) and key == own:
            return
        self.set(key, entry)

    def _remove(self, text: str) -> None:
        word = text.strip()
        if word == "-":
            self.default = None
            return
        key = self.ctx.hid if word == "self" else _key(word)
        if key not in self.table:
            raise HandlerError(f"there is no route for {word}")
        self.remove(key)

    def _load(self, text: str) -> None:
        """Routes from a file, one a line; `#` starts a comment."""
        try:
            lines = Path(text.strip()).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise HandlerError(f"cannot read {text.strip()}: {error}") from None
        for number, line in enumerate(lines, 1):
            route = line.partition("#")[0].strip()
            if route:
                try:
                    self._add(route)
                except HandlerError as error:
                    raise HandlerError(f"{text.strip()}:{number}: {error.message}") from None

    def _generate(self, text: str) -> None:
        """`TYPE COUNT PORT`: random XIDs, for measurements."""
        words = text.replace(",", " ").split()
        if len(words) != 3:
            raise HandlerError("expected 'TYPE COUNT PORT'")
        count, port = _number(words[1]), _port(words[2])
        if _principal(words[0]) != self.type or not 0 <= count <= MAX_GENERATED:
            raise HandlerError(f"this table takes up to {MAX_GENERATED} XIDs of type 0x{self.type:x}")
        self.generating.append((count, Entry(port)))
        if self.slicing is None:
            self._slice()

    def _slice(self) -> None:
        """Enter some of the routes that are to be generated."""
        count, entry = self.generating.popleft()
        if count > SLICE:
            self.generating.appendleft((count - SLICE, entry))
        head, rng = self.type.to_bytes(4, "big"), self.ctx.rng
        for _ in range(min(count, SLICE)):
            self.set(head + rng.randbytes(20), entry)
        self.slicing = self.timer(0.0, self._slice) if self.generating else None

    def list_routes(self) -> str:
        """`XID,PORT,NEXTHOP,FLAGS[,DELIVER]`, one a line, the default last."""
        lines = [_line(str(XID.from_key(key)), entry) for key, entry in sorted(self.table.items())]
        if self.default is not None:
            lines.append(_line("-", self.default))
        return listing(lines)

    def _enable(self, text: str) -> None:
        word = text.strip().lower()
        if word not in ("0", "1", "true", "false"):
            raise HandlerError(f"'{text.strip()}' is neither 0 nor 1")
        self.enabled = word in ("1", "true")
        if self.switched is not None:
            self.switched()

    READ = {
        "list": ReadHandler(
            "all routes, `XID,PORT,NEXTHOP,FLAGS` one a line", lambda table, _: table.list_routes()
        ),
        "count": ReadHandler("number of routes", lambda table, _: str(len(table.table))),
        "generating": ReadHandler(
            "routes still to be generated", lambda t, _: str(sum(count for count, _ in t.generating))
        ),
        "enabled": ReadHandler(
            "1, or 0 when every look-up falls back", lambda table, _: str(int(table.enabled))
        ),
        "drops": shows("drops", "packets for a route to DISCARD"),
    }
    WRITE = {
        "add": WriteHandler("`XID PORT`: a new route", lambda table, value: table._add(value, fresh=True)),
        "set": WriteHandler("`XID PORT`: a route, new or not", lambda table, value: table._add(value)),
        "add4": WriteHandler(
            "`XID,PORT,NEXTHOP,FLAGS`: a new route", lambda t, value: t._add(value, fresh=True)
        ),
        "set4": WriteHandler("`XID,PORT,NEXTHOP,FLAGS`: a route, new or not", lambda t, value: t._add(value)),
        "remove": WriteHandler("`XID`: forget a route", lambda table, value: table._remove(value)),
        "load": WriteHandler("`FILE`: read routes, one a line", lambda table, value: table._load(value)),
        "generate": WriteHandler(
            "`TYPE COUNT PORT`: random routes, entered little by little when there are many",
            lambda table, value: table._generate(value),
        ),
        "enabled": WriteHandler("0 makes every look-up fall back", lambda table, value: table._enable(value)),
    }


def _line(name: str, entry: Entry) -> str:
    nexthop = str(XID.from_key(entry.nexthop)) if entry.nexthop else ""
    deliver = f",{entry.deliver}" if entry.deliver != -1 else ""
    return f"{name},{entry.port},{nexthop},{entry.flags}{deliver}"


def _key(text: str) -> bytes:
    try:
        return XID.parse(text).key
    except WireError as error:
        raise HandlerError(error.message) from None


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise HandlerError(f"'{text}' is not a number") from None


def _port(text: str) -> int:
    return _PORTS[text.upper()] if text.upper() in _PORTS else _number(text)
