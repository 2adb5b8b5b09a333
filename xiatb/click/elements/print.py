"""Writes packets to the log as hexadecimal digits."""

from __future__ import annotations

from xiatb.click.args import Arg, to_bool, to_int, to_text
from xiatb.click.element import Element, ReadHandler, WriteHandler
from xiatb.click.packet import Packet


class Print(Element):
    """Writes a line for every packet to the node's log: LABEL, length and the first MAXLENGTH octets.

    MAXLENGTH -1 is the whole packet. The handler `active` turns it off and on.
    """

    __slots__ = ("active", "label", "maxlength")
    ARGS = (
        Arg("LABEL", to_text, "what each line begins with", ""),
        Arg("MAXLENGTH", to_int, "octets shown; -1 for all", 24),
        Arg("ACTIVE", to_bool, "whether it writes at all", True, positional=False),
    )
    READ = {"active": ReadHandler("whether it writes", lambda element, _: str(element.active).lower())}
    WRITE = {"active": WriteHandler("turn it on or off", lambda element, value: element.turn(value))}
    label: str
    maxlength: int
    active: bool

    def turn(self, value: str) -> None:
        """Write handler `active`."""
        self.active = to_bool(value.strip())

    def simple_action(self, p: Packet) -> Packet | None:
        """Write a line."""
        if self.active:
            shown = p.data if self.maxlength < 0 else p.data[: self.maxlength]
            more = "..." if len(shown) < len(p.data) else ""
            prefix = f"{self.label}: " if self.label else f"{self.name}: "
            self.ctx.log("info", f"{prefix}{len(p.data):4d} | {shown.hex(' ', 4)}{more}")
        return p
