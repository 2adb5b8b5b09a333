"""Sends echo requests and times the replies."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_dag, to_int, to_seconds
from xiatb.click.context import Context, Timer
from xiatb.click.element import Element, ReadHandler, shows
from xiatb.click.packet import Packet
from xiatb.errors import WireError
from xiatb.wire import xcmp, xip
from xiatb.wire.dag import DAG


class XIAPingSource(Element):
    """Output 0: an XCMP echo request from SRC to DST (DAGs as text) every INTERVAL, LIMIT in all (-1:
    without end). Input 0: XCMP packets that came back; each reply is timed and logged, errors are
    counted.
    """

    __slots__ = ("count", "dst", "errors", "interval", "limit", "received", "rtts", "sent", "src", "timer_")
    PORTS = "1/1"
    PROCESSING = "push"
    ARGS = (
        Arg("SRC", to_dag, "source DAG", REQUIRED),
        Arg("DST", to_dag, "destination DAG", REQUIRED),
        Arg("INTERVAL", to_seconds, "time between requests", 1.0, positional=False),
        Arg("LIMIT", to_int, "requests in all, -1 without end", -1, positional=False),
    )
    READ = {
        "sent": shows("count", "requests sent"),
        "received": shows("received", "replies received"),
        "errors": shows("errors", "XCMP errors received"),
        "rtt": ReadHandler(
            "mean round-trip time, milliseconds", lambda element, _: f"{element.mean() * 1e3:.3f}"
        ),
    }
    src: DAG
    dst: DAG
    interval: float
    limit: int

    def configure(self, args: dict[str, Any]) -> None:
        """Take the addresses."""
        super().configure(args)
        self.count = self.received = self.errors = 0
        self.sent: dict[int, float] = {}
        self.rtts = 0.0
        self.timer_: Timer | None = None

    def initialize(self, ctx: Context) -> None:
        """Begin."""
        if self.limit:
            self.timer_ = self.timer(0.0, self._send)

    def cleanup(self) -> None:
        """Stop the timer."""
        if self.timer_ is not None:
            self.timer_.cancel()

    def mean(self) -> float:
        """Mean round-trip time so far, seconds."""
        return self.rtts / self.received if self.received else 0.0

    def _send(self) -> None:
        self.count += 1
        seq = self.count & 0xFFFF
        self.sent[seq] = self.ctx.now()
        if len(self.sent) > 1024:
            del self.sent[next(iter(self.sent))]
        self.timer_ = self.timer(self.interval, self._send) if self.count != self.limit else None
        body = xcmp.echo(True, 1, seq, bytes(56))
        self.out0(Packet.from_xip(xip.build(xip.NXT_XCMP, self.dst, self.src, body)))

    def receive(self, p: Packet) -> None:
        """Something came back."""
        try:
            message = xcmp.parse(xip.parse(p.data, p.net).payload)
        except WireError:
            self.errors += 1
            return
        started = self.sent.pop(message.seq, None) if message.type == xcmp.ECHO_REPLY else None
        if started is None:
            self.errors += 1
            return
        rtt = self.ctx.now() - started
        self.received += 1
        self.rtts += rtt
        self.ctx.log("info", f"{self.name}: reply {message.seq} in {rtt * 1e3:.3f} ms")
