"""The node's control messages: answers echo requests, reports what goes wrong with packets."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import Arg, to_dag, to_positive
from xiatb.click.context import Context
from xiatb.click.element import Element, shows, zeroes
from xiatb.click.packet import (
    REASON_HLIM,
    REASON_NEIGHBOUR,
    REASON_TOO_BIG,
    Packet,
)
from xiatb.errors import WireError
from xiatb.wire import xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import BROADCAST_FID, XID

_BROADCAST = BROADCAST_FID.key


class XCMP(Element):
    """Input 0: XCMP packets for this node. An echo request is answered by output 0; replies and errors
    go to output 1, for the node. Input 1: packets with a reason annotation (no route, hop limit, too
    big, neighbour silent); the error about them leaves by output 0 towards their source.

    There is never an error about an XCMP error, nor about anything sent to or from the broadcast FID,
    and at most RATE errors a second, BURST at once. Errors come from DAG, or from the node's present
    locator.
    """

    __slots__ = ("burst", "dag", "echoes", "errors", "malformed", "rate", "suppressed", "tokens", "updated")
    PORTS = "2/2"
    PROCESSING = "push"
    ARGS = (
        Arg("RATE", to_positive, "errors a second", 200, positional=False),
        Arg("BURST", to_positive, "errors at once", 50, positional=False),
        Arg("DAG", to_dag, "source of errors; the node's locator when not given", None, positional=False),
    )
    READ = {
        "echoes": shows("echoes", "echo requests answered"),
        "errors": shows("errors", "error messages sent"),
        "suppressed": shows("suppressed", "errors that must not or may not be sent"),
        "malformed": shows("malformed", "XCMP packets that cannot be read"),
    }
    WRITE = {"reset": zeroes("echoes", "errors", "suppressed", "malformed")}
    rate: int
    burst: int
    dag: DAG | None

    def configure(self, args: dict[str, Any]) -> None:
        """Take the limits."""
        super().configure(args)
        self.echoes = self.errors = self.suppressed = self.malformed = 0
        self.tokens = float(self.burst)
        self.updated = 0.0

    def initialize(self, ctx: Context) -> None:
        """The limit counts from now."""
        self.updated = ctx.now()

    def push(self, port: int, p: Packet) -> None:
        """A message to us, or a packet to complain about."""
        try:
            if port == 0:
                self._message(p)
            else:
                self._complain(p)
        except WireError:
            self.malformed += 1

    def _message(self, p: Packet) -> None:
        header = xip.parse(p.data, p.net)
        message = xcmp.parse(header.payload)
        if message.type != xcmp.ECHO_REQUEST:
            self.outs[1](p)
            return
        reply = xcmp.reply_to(header.payload)
        self.echoes += 1
        self.out0(_packet(header.src(), header.dst(), reply))

    def _complain(self, p: Packet) -> None:
        header = xip.parse(p.data, p.net)
        if self._forbidden(header) or not self._allowed():
            self.suppressed += 1
            return
        original = memoryview(p.data)[p.net :]
        if p.reason == REASON_HLIM:
            body = xcmp.time_exceeded(original)
        elif p.reason == REASON_TOO_BIG:
            body = xcmp.too_big(p.value, original)
        elif p.reason == REASON_NEIGHBOUR:
            body = xcmp.unreachable(xcmp.CODE_HOST, original)
        else:
            body = xcmp.unreachable(xcmp.unreachable_code(p.data, p.net), original)
        source = self.dag or self.ctx.dag or DAG.chain(XID.from_key(self.ctx.hid))
        target = header.src()
        self.errors += 1
        self.out0(_packet(target, source, body))

    @staticmethod
    def _forbidden(header: xip.Header) -> bool:
        """Whether nobody may be told about this packet."""
        if header.nxt == xip.NXT_XCMP and xcmp.is_error(header.payload):
            return True
        nodes = header.dst_wire + header.src_wire
        return any(nodes[at : at + 24] == _BROADCAST for at in range(0, len(nodes), 28))

    def _allowed(self) -> bool:
        """Take one token of the rate limit, if there is one."""
        now = self.ctx.now()
        self.tokens = min(self.burst, self.tokens + (now - self.updated) * self.rate)
        self.updated = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def _packet(dst: DAG, src: DAG, body: bytes) -> Packet:
    return Packet.from_xip(xip.build(xip.NXT_XCMP, dst, src, body))
