"""Sorts packets by the protocol behind the XIP header."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_int, to_text
from xiatb.click.element import Element, shows
from xiatb.click.packet import Packet
from xiatb.wire import xip

_NAMES = {
    "DATA": xip.NXT_DATA, "XCMP": xip.NXT_XCMP, "XDGRAM": xip.NXT_XDGRAM, "XSTREAM": xip.NXT_XSTREAM,
    "FID": xip.NXT_FID, "-": -1,
}  # fmt: skip


def _protocol(text: str) -> int:
    word = to_text(text).upper()
    return _NAMES[word] if word in _NAMES else to_int(text)


class XIANextHeaderClassifier(Element):
    """Pushes a packet out of the output of the first NEXT that its next header is: DATA, XCMP, XDGRAM,
    XSTREAM, FID, a number, or `-` for any. Drops what matches none.
    """

    __slots__ = ("drops", "next")
    PORTS = "1/-"
    PROCESSING = "push"
    ARGS = (Arg("NEXT", _protocol, "next header of the packets of one output", REQUIRED, rest=True),)
    READ = {"drops": shows("drops", "packets that matched nothing")}
    next: list[int]

    def configure(self, args: dict[str, Any]) -> None:
        """Take the protocols."""
        super().configure(args)
        self.drops = 0

    def ports_wanted(self) -> tuple[int | None, int | None]:
        """One output a protocol."""
        return 1, len(self.next)

    def receive(self, p: Packet) -> None:
        """Choose the output."""
        nxt = p.data[p.net + 1]
        for wanted, out in zip(self.next, self.outs, strict=False):
            if wanted in (nxt, -1):
                out(p)
                return
        self.drops += 1
