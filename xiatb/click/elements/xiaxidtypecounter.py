"""Counts packets by the principal types of their addresses."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.element import Element, ReadHandler, WriteHandler, listing
from xiatb.click.elements.xiaxidtypeclassifier import matches, to_rule
from xiatb.click.packet import Packet


class XIAXIDTypeCounter(Element):
    """Counts each packet for the first PATTERN that it matches and lets it go on. Patterns as
    XIAXIDTypeClassifier.
    """

    __slots__ = ("counts", "pattern", "rules")
    ARGS = (Arg("PATTERN", to_text, "`src T`, `dst T`, `next T` or `-`", REQUIRED, rest=True),)
    pattern: list[str]

    def configure(self, args: dict[str, Any]) -> None:
        """Take the patterns."""
        super().configure(args)
        self.rules = [to_rule(text, index) for index, text in enumerate(self.pattern)]
        self.reset()

    def reset(self) -> None:
        """Begin at 0."""
        self.counts = [0] * len(self.rules)

    def simple_action(self, p: Packet) -> Packet | None:
        """Count."""
        for index, rule in enumerate(self.rules):
            if matches(rule, p):
                self.counts[index] += 1
                break
        return p

    def table(self) -> str:
        """One line a pattern."""
        return listing(f"{text}\t{count}" for text, count in zip(self.pattern, self.counts, strict=True))

    READ = {"count": ReadHandler("packets by pattern, one a line", lambda element, _: element.table())}
    WRITE = {"reset": WriteHandler("set the counters to 0", lambda element, _: element.reset())}
