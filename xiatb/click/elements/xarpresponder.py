"""Tells neighbours where this node is."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.context import Context, port_of
from xiatb.click.element import Element, Receiver, WriteHandler, shows, zeroes
from xiatb.click.errors import HandlerError
from xiatb.click.packet import Packet
from xiatb.errors import WireError
from xiatb.wire import xarp
from xiatb.wire.xid import XID


class XARPResponder(Element):
    """Answers XARP requests for the node's own HID, and for those added by the handler `add`, with the
    Ethernet address of port DEVNAME. The answer leaves by output 0; all else goes to output 1 or is
    dropped.
    """

    __slots__ = ("answered", "devname", "extra", "mac", "malformed", "other")
    PORTS = "1/1-2"
    PROCESSING = "push"
    ARGS = (Arg("DEVNAME", to_text, "port that the requests came in by", REQUIRED),)
    READ = {
        "answered": shows("answered", "requests answered"),
        "malformed": shows("malformed", "frames not XARP"),
    }
    WRITE = {
        "reset": zeroes("answered", "malformed"),
        "add": WriteHandler(
            "`HID`: answer for it too", lambda element, value: element.extra.add(_key(value))
        ),
        "remove": WriteHandler(
            "`HID`: no longer answer for it", lambda e, value: e.extra.discard(_key(value))
        ),
    }
    devname: str

    def configure(self, args: dict[str, Any]) -> None:
        """Take the port's name."""
        super().configure(args)
        self.answered = self.malformed = 0
        self.extra: set[bytes] = set()
        self.mac = bytes(6)
        self.other: Receiver | None = None

    def initialize(self, ctx: Context) -> None:
        """Learn the port's address."""
        self.mac = port_of(ctx, self.devname).mac
        self.other = self.optional_output(1)

    def receive(self, p: Packet) -> None:
        """Answer a request."""
        try:
            message = xarp.parse(p.data, 14)
        except WireError:
            self.malformed += 1
            return
        if message.op == xarp.REQUEST and (message.tpa == self.ctx.hid or message.tpa in self.extra):
            if message.sha[0] & 1:
                self.malformed += 1
                return
            self.answered += 1
            body = xarp.reply(self.mac, message.tpa, message.sha, message.spa)
            self.out0(Packet(bytearray(message.sha + self.mac + b"\x99\x90" + body)))
        elif self.other is not None:
            self.other(p)


def _key(text: str) -> bytes:
    try:
        return XID.parse(text.strip()).key
    except WireError as error:
        raise HandlerError(error.message) from None
