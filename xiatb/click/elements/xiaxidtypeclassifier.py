"""Sorts packets by the principal types of their addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.element import Element, Receiver, shows
from xiatb.click.errors import ConfigError
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet
from xiatb.errors import WireError
from xiatb.wire.xid import XID, parse_type

Rule = tuple[str, bytes]
"""`src`, `dst`, `next` or `-`, and the octets that the node begins with."""


class XIAXIDTypeClassifier(Element):
    """Pushes a packet out of the output of the first PATTERN that it matches; drops it when it matches none.

    `src T`, `dst T`: the final intent of the source or destination is of type T. `next T`: the node
    that the present edge (see XIASelectPath) leads to is. T is a name (AD, HID, SID, ...), a number
    (0x50), or a whole XID (`dst SID:1110...1112`). `-` is everything.
    """

    __slots__ = ("by_type", "drops", "pattern", "rest", "rules")
    PORTS = "1/-"
    PROCESSING = "push"
    ARGS = (Arg("PATTERN", to_text, "`src T`, `dst T`, `next T` or `-`", REQUIRED, rest=True),)
    READ = {"drops": shows("drops", "packets that matched no pattern")}
    pattern: list[str]

    def configure(self, args: dict[str, Any]) -> None:
        """Take the patterns."""
        super().configure(args)
        self.drops = 0
        self.rules = [to_rule(text, index) for index, text in enumerate(self.pattern)]

    def ports_wanted(self) -> tuple[int | None, int | None]:
        """One output a pattern."""
        return 1, len(self.rules)

    def initialize(self, ctx: Any) -> None:
        """Prepare the fast table for patterns of `next` and one-octet types."""
        self.rest: Receiver = self._drop
        self.by_type: list[Receiver] = []
        table: dict[int, Receiver] = {}
        for (what, key), out in zip(self.rules, self.outs, strict=True):
            if what == "-":
                self.rest = out
                break
            table.setdefault(int.from_bytes(key, "big") if len(key) == 4 else 0, out)
        self.by_type = [table.get(number, self.rest) for number in range(256)]

    def receiver(self, port: int) -> Callable[[Packet], None]:
        """A faster function when all patterns are `next` with types below 256."""
        plain = all(
            what == "-" or (what == "next" and key[:3] == b"\0\0\0" and len(key) == 4)
            for what, key in self.rules
        )
        return self._receive_next if plain else self.receive

    def _drop(self, p: Packet) -> None:
        self.drops += 1

    def _receive_next(self, p: Packet) -> None:
        """Classify by the type of the node that the present edge leads to; XIASelectPath has checked
        the edge.
        """
        data, net = p.data, p.net
        last = data[net + 7]
        edge = net + 4 + 28 * data[net + 5] if last == 0x7E else net + 32 + 28 * last
        node = net + 8 + 28 * (data[edge + p.path] & 0x7F)
        if data[node + 2] or data[node + 1] or data[node]:
            self.rest(p)
        else:
            self.by_type[data[node + 3]](p)

    def trace(self, port: int, trace: Trace) -> int | None:
        """The first rule, unless a source, in which packets of a flow differ, has to be looked at."""
        for number, rule in enumerate(self.rules):
            if rule[0] == "src":
                return None
            if matches(rule, trace.packet):
                return number
        return None

    def receive(self, p: Packet) -> None:
        """Classify by any patterns."""
        for rule, out in zip(self.rules, self.outs, strict=False):
            if matches(rule, p):
                out(p)
                return
        self.drops += 1


def matches(rule: Rule, p: Packet) -> bool:
    """Whether a packet, whose header has been checked, is what the rule says."""
    what, key = rule
    if what == "-":
        return True
    data, net = p.data, p.net
    dnode, last = data[net + 5], data[net + 7]
    if what == "next":
        edge = net + 4 + 28 * dnode if last == 0x7E else net + 32 + 28 * last
        index = data[edge + p.path] & 0x7F if p.path < 4 else 0x7F
        if index >= dnode:
            return False
        node = net + 8 + 28 * index
    elif what == "dst":
        node = net + 8 + 28 * (dnode - 1)
    else:
        node = net + 8 + 28 * (dnode + data[net + 6] - 1)
    return data[node : node + len(key)] == key


def to_rule(text: str, index: int) -> Rule:
    """A pattern as (what, octets of the type or the whole key); ConfigError naming argument `index`."""
    words = text.split()
    if words == ["-"]:
        return "-", b""
    if len(words) != 2 or words[0] not in ("src", "dst", "next"):
        raise ConfigError(f"PATTERN: '{text}' is not 'src T', 'dst T', 'next T' or '-'", index)
    try:
        if ":" in words[1]:
            return words[0], XID.parse(words[1]).key
        return words[0], parse_type(words[1]).to_bytes(4, "big")
    except WireError as error:
        raise ConfigError(f"PATTERN: {error.message}", index) from None
