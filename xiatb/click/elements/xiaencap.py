"""Puts an XIP header before payloads."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_count, to_dag
from xiatb.click.element import Element
from xiatb.click.errors import ConfigError
from xiatb.click.packet import ETHER_LEN, NODE_PORT, Packet
from xiatb.wire import xip
from xiatb.wire.dag import DAG


class XIAEncap(Element):
    """Makes the whole packet the payload of an XIP packet from SRC to DST (DAGs as text) with next
    header NEXT, behind room for an Ethernet header.
    """

    __slots__ = ("dst", "hlim", "next", "src")
    ARGS = (
        Arg("NEXT", to_count, "next header", REQUIRED),
        Arg("SRC", to_dag, "source DAG", REQUIRED),
        Arg("DST", to_dag, "destination DAG", REQUIRED),
        Arg("HLIM", to_count, "hop limit", xip.HLIM_DEFAULT, positional=False),
    )
    next: int
    src: DAG
    dst: DAG
    hlim: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the addresses."""
        super().configure(args)
        if self.next > 255 or self.hlim > 255:
            raise ConfigError("NEXT and HLIM are at most 255")

    def simple_action(self, p: Packet) -> Packet | None:
        """Build the header."""
        packet = xip.build(self.next, self.dst, self.src, p.data[: xip.MAX_PAYLOAD], hlim=self.hlim)
        p.data = bytearray(ETHER_LEN) + packet
        p.net = ETHER_LEN
        p.port = NODE_PORT
        return p
