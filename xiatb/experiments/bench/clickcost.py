"""What the Click engine costs a packet, without sockets: processor time from a frame's arrival at one line
card of a router to its departure by another. There is no bar; scripts/bench shows it for comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from xiatb.click.compose import PortSpec, compose
from xiatb.click.context import ManualContext
from xiatb.click.graph import Router
from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import XID, XidType

NAME = "clickcost"
PAYLOAD = 1000
FRAMES_PER_SECOND = 10_000
"""frames in a run of one second's length"""


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


def _receiver() -> Callable[[bytearray], None]:
    """The entry of a router as nodes run it, whose devices take everything."""
    ctx = ManualContext(hid=_HIDS[1].key, dag=DAG.host(_ADS[1], _HIDS[1]))
    links = [PortSpec("eth0", "link", 9000), PortSpec("eth1", "link", 9000)]
    ports = [PortSpec("xia0r", "internal", 9000), *links]
    router = Router.from_text(compose("router", ports), "router")
    for port in ports:
        ctx.add_device(port.name).send = lambda data: True  # type: ignore[method-assign]
    router.initialize(ctx)
    elements: dict[str, Any] = dict(router.elements)
    elements["core/rt_AD"].set(_ADS[1].key, Entry(SELF))
    elements["core/rt_AD"].set(_ADS[2].key, Entry(2, _HIDS[3].key))
    elements["core/rt_HID"].set(_HIDS[2].key, Entry(2, _HIDS[3].key))
    elements["core/rt_SID"].set(_SID.key, Entry(SELF, None, 0, 0))
    elements["lc2/xarpq"].insert(_HIDS[3].key, b"\2\0\0\0\0\3")
    receive: Callable[[bytearray], None] = elements["lc1/in"].receive_frame
    return receive


def measure(runs: int, seconds: float) -> list[Figure]:
    """Microseconds a packet for typical packets."""
    receive = _receiver()
    source = DAG.service(_ADS[3], _HIDS[3], _OTHER)
    figures = []
    for name, dst in CASES.items():
        frame = bytes(12) + b"\xc0\xde" + xip.build(2, dst, source, bytes(PAYLOAD))
        figure = Figure(NAME, name, Bar(), unit="us")
        for _ in range(runs):
            frames = [bytearray(frame) for _ in range(int(FRAMES_PER_SECOND * seconds))]
            start = time.process_time()
            for data in frames:
                receive(data)
            figure.add((time.process_time() - start) / len(frames) * 1e6)
        figures.append(figure)
    return figures
