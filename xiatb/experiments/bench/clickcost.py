"""What the Click engine costs a packet, without sockets: processor time from a frame's arrival at one line
card of a router to its departure by another, by the fast path and, without that, by the graph. There is no
bar; scripts/bench shows it for comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from xiatb.click.compose import PortSpec, compose
from xiatb.click.context import BurstReceiver, ManualContext
from xiatb.click.graph import Router
from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import XID, XidType

NAME = "clickcost"
PAYLOAD = 1000
BURST = 64
BURSTS_PER_SECOND = 160
"""bursts in a run of one second's length"""


def _xid(kind: XidType, number: int) -> XID:
    return XID(kind, bytes([number]) * 20)


_ADS = [_xid(XidType.AD, number) for number in range(4)]
_HIDS = [_xid(XidType.HID, number) for number in range(4)]
_SID, _OTHER = _xid(XidType.SID, 1), _xid(XidType.SID, 9)
CASES = {
    "transit, first edge (AD HID)": DAG.host(_ADS[2], _HIDS[2]),
    "transit, one fallback ((AD HID) SID)": DAG.service(_ADS[2], _HIDS[2], _OTHER),
    "own AD, then a host": DAG.host(_ADS[1], _HIDS[2]),
    "local service": DAG.service(_ADS[1], _HIDS[1], _SID),
}


WAYS = {"fast path": True, "graph": False}


class _Sink:
    """A port that takes everything and remembers who wants its frames."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mac = bytes(6)
        self.mtu = 9000
        self.receive: BurstReceiver = lambda frames: None

    def send(self, data: bytearray) -> bool:
        return True

    def send_burst(self, frames: Sequence[bytearray]) -> list[int]:
        return []

    def set_receiver(self, receiver: BurstReceiver) -> None:
        self.receive = receiver


def _router(fast: bool) -> BurstReceiver:
    """The entry of a router as nodes run it."""
    ctx = ManualContext(hid=_HIDS[1].key, dag=DAG.host(_ADS[1], _HIDS[1]))
    links = [PortSpec("eth0", "link", 9000), PortSpec("eth1", "link", 9000)]
    ports = [PortSpec("xia0r", "internal", 9000), *links]
    router = Router.from_text(compose("router", ports), "router")
    sinks = {port.name: _Sink(port.name) for port in ports}
    ctx.device = sinks.get  # type: ignore[assignment, method-assign]
    router.initialize(ctx)
    elements: dict[str, Any] = dict(router.elements)
    elements["core/rt_AD"].set(_ADS[1].key, Entry(SELF))
    elements["core/rt_AD"].set(_ADS[2].key, Entry(2, _HIDS[3].key))
    elements["core/rt_HID"].set(_HIDS[2].key, Entry(2, _HIDS[3].key))
    elements["core/rt_SID"].set(_SID.key, Entry(SELF, None, 0, 0))
    elements["lc2/xarpq"].insert(_HIDS[3].key, b"\2\0\0\0\0\3")
    router.write("lc1/fast.enabled", str(int(fast)))
    return sinks["eth0"].receive


def _microseconds(receive: Callable[[list[bytearray]], None], frame: bytes, seconds: float) -> float:
    bursts = [
        [bytearray(frame) for _ in range(BURST)] for _ in range(max(1, int(BURSTS_PER_SECOND * seconds)))
    ]
    start = time.process_time()
    for burst in bursts:
        receive(burst)
    return (time.process_time() - start) / (len(bursts) * BURST) * 1e6


def measure(runs: int, seconds: float) -> list[Figure]:
    """Microseconds a packet for typical packets."""
    receivers = {how: _router(fast) for how, fast in WAYS.items()}
    source = DAG.service(_ADS[3], _HIDS[3], _OTHER)
    figures = []
    for name, dst in CASES.items():
        frame = bytes(12) + b"\xc0\xde" + xip.build(2, dst, source, bytes(PAYLOAD))
        for how, receive in receivers.items():
            figure = Figure(NAME, f"{how}: {name}", Bar(), unit="us")
            for _ in range(runs):
                figure.add(_microseconds(receive, frame, seconds))
            figures.append(figure)
    return figures
