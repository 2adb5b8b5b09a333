"""Takes octets off the front of packets."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_count
from xiatb.click.element import Element, shows
from xiatb.click.packet import Packet


class Strip(Element):
    """Removes the first LENGTH octets; drops packets that are shorter."""

    __slots__ = ("drops", "length")
    ARGS = (Arg("LENGTH", to_count, "octets", REQUIRED),)
    READ = {"drops": shows("drops", "packets that were too short")}
    length: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the length."""
        super().configure(args)
        self.drops = 0

    def simple_action(self, p: Packet) -> Packet | None:
        """Remove."""
        if len(p.data) < self.length:
            self.drops += 1
            return None
        del p.data[: self.length]
        p.net = max(0, p.net - self.length)
        return p
