"""Writes XIP headers to the log."""

from __future__ import annotations

from xiatb.click.args import Arg, to_bool, to_text
from xiatb.click.element import Element, ReadHandler, WriteHandler
from xiatb.click.packet import Packet
from xiatb.errors import WireError
from xiatb.wire import xip

_NAMES = {0: "DATA", 1: "XCMP", 2: "XDGRAM", 3: "XSTREAM", 4: "FID", 50: "MIGRATE", 51: "MIGRATEACK"}


class XIAPrint(Element):
    """Writes a line for every packet to the node's log: LABEL, next header, payload length, hop limit,
    last visited node, destination and source DAG.
    """

    __slots__ = ("active", "label")
    ARGS = (
        Arg("LABEL", to_text, "what each line begins with", ""),
        Arg("ACTIVE", to_bool, "whether it writes at all", True, positional=False),
    )
    READ = {"active": ReadHandler("whether it writes", lambda element, _: str(element.active).lower())}
    WRITE = {"active": WriteHandler("turn it on or off", lambda element, value: element.turn(value))}
    label: str
    active: bool

    def turn(self, value: str) -> None:
        """Write handler `active`."""
        self.active = to_bool(value.strip())

    def simple_action(self, p: Packet) -> Packet | None:
        """Write a line."""
        if self.active:
            self.ctx.log("info", f"{self.label or self.name}: {_describe(p)}")
        return p


def _describe(p: Packet) -> str:
    try:
        header = xip.parse(p.data, p.net)
        last = "entry" if header.last == 0x7E else str(header.last)
        name = _NAMES.get(header.nxt, str(header.nxt))
        return (
            f"{name} {header.plen} octets, hlim {header.hlim}, last {last}, "
            f"to {header.dst()} from {header.src()}"
        )
    except WireError as error:
        return f"bad XIP packet of {len(p.data)} octets: {error.message}"
