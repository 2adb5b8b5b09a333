"""Sorts packets by octets at given offsets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.context import Context
from xiatb.click.element import Element, Receiver, shows
from xiatb.click.errors import ConfigError
from xiatb.click.flows import Trace
from xiatb.click.packet import Packet

_CLAUSE = re.compile(r"(!?)(\d+)/([0-9A-Fa-f?]+)(?:%([0-9A-Fa-f]+))?\Z")
_XIP = 0xC0DE
Clause = tuple[int, int, int, int, bool]  # offset, end, mask, value, negated


class Classifier(Element):
    """Pushes a packet out of the output of the first PATTERN that it matches; drops it when it matches none.

    A pattern is `-` (everything) or clauses `OFFSET/VALUE[%MASK]` separated by blanks, all of which
    must match: VALUE and MASK are hexadecimal octets, `?` is any digit, offsets count from the start of
    the frame; `!` before a clause turns it round. `Classifier(12/C0DE, 12/9990 20/0001, -)`
    """

    __slots__ = ("by_ethertype", "drops", "pattern", "rest", "rules")
    PORTS = "1/-"
    PROCESSING = "push"
    ARGS = (Arg("PATTERN", to_text, "what the packets of one output look like", REQUIRED, rest=True),)
    READ = {"drops": shows("drops", "packets that matched no pattern")}
    pattern: list[str]

    def configure(self, args: dict[str, Any]) -> None:
        """Take the patterns."""
        super().configure(args)
        self.drops = 0
        self.rules: list[tuple[Clause, ...]] = []
        for index, text in enumerate(self.pattern):
            self.rules.append(() if text.strip() == "-" else tuple(_clauses(text, index)))

    def ports_wanted(self) -> tuple[int | None, int | None]:
        """One output a pattern."""
        return 1, len(self.rules)

    def initialize(self, ctx: Context) -> None:
        """Prepare the table for patterns that are plain ethertypes."""
        self.rest: Receiver = self._drop
        self.by_ethertype: dict[int, Receiver] = {}
        for rule, out in zip(self.rules, self.outs, strict=True):
            if rule == ():
                self.rest = out
                break
            self.by_ethertype.setdefault(rule[0][3], out)

    def receive(self, p: Packet) -> None:
        """Find the first matching pattern."""
        data = p.data
        for rule, out in zip(self.rules, self.outs, strict=False):
            for start, end, mask, value, negated in rule:
                if ((int.from_bytes(data[start:end], "big") & mask) == value and end <= len(data)) is negated:
                    break
            else:
                out(p)
                return
        self.drops += 1

    def receiver(self, port: int) -> Callable[[Packet], None]:
        """The general matcher, or a faster one when all patterns are plain ethertypes."""
        if all(rule == () or _ethertype(rule) for rule in self.rules[:-1]) and self.rules:
            last = self.rules[-1]
            if (last == () or _ethertype(last)) and () not in self.rules[:-1]:
                return self._receive_by_ethertype
        return self.receive

    def trace(self, port: int, trace: Trace) -> int | None:
        """The rule for XIP, when all rules are plain ethertypes."""
        if self.receiver(0) == self._receive_by_ethertype:
            for number, rule in enumerate(self.rules):
                if rule == () or rule[0][3] == _XIP:
                    return number
        return None

    def _receive_by_ethertype(self, p: Packet) -> None:
        data = p.data
        if len(data) >= 14:
            self.by_ethertype.get((data[12] << 8) | data[13], self.rest)(p)
        else:
            self.drops += 1

    def _drop(self, p: Packet) -> None:
        self.drops += 1


def _ethertype(rule: tuple[Clause, ...]) -> bool:
    return len(rule) == 1 and rule[0][:3] == (12, 14, 0xFFFF) and not rule[0][4]


def _clauses(text: str, index: int) -> list[Clause]:
    found = []
    for word in text.split():
        match = _CLAUSE.match(word)
        if not match or len(match[3]) % 2 or (match[4] and len(match[4]) != len(match[3])):
            raise ConfigError(f"PATTERN: '{word}' is not OFFSET/VALUE[%MASK] in whole octets, or '-'", index)
        mask = int(match[4] or "f" * len(match[3]), 16)
        mask &= int("".join("0" if digit == "?" else "f" for digit in match[3]), 16)
        value = int(match[3].replace("?", "0"), 16) & mask
        start = int(match[2])
        found.append((start, start + len(match[3]) // 2, mask, value, match[1] == "!"))
    if not found:
        raise ConfigError("PATTERN: an empty pattern matches nothing (expected '-' for everything)", index)
    return found
