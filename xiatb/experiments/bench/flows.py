"""Flows between two hosts over a slow, long link: what benchmarks of congestion controls share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.experiments.bench.stage import PAIRS, Stage, address, stage
from xiatb.lab.namespaces import inside
from xiatb.lab.paths import NETNS_ROOT, netns_name

ROOM = {"xia": 85.6, "tcp": 95.6}
"""Mbit/s that frames of 1500 bytes (and Ethernet's 14) on 100 Mbit/s leave for payload: XIP and stream
headers take 204 bytes between two hosts of a lab, IPv4 and TCP with timestamps 52"""
_APP = "xiatb.experiments.bench.flowapp"
_PATIENCE = 60.0
LEFT, RIGHT = PAIRS[1500]


@dataclass(frozen=True)
class Result:
    """What a run of flows gave."""

    mbit: list[float]
    """of each flow, Mbit/s of payload in the window"""
    seconds: float
    """from before the first connect to the last byte"""


@contextlib.contextmanager
def long_link(*, round_trip_ms: float, loss: str = "0%", queue: str = "256k") -> Iterator[Stage]:
    """The lab, with 100 Mbit/s, this round trip and loss both ways between the router and the receiving host:
    the bottleneck is in the network, not in the sender's own queue. TCP remembers nothing of earlier runs."""
    with stage() as scene:
        for host in (LEFT, RIGHT):
            with inside(NETNS_ROOT / netns_name(scene.lab, host)):
                Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
        scene.set_link(RIGHT, rate="100mbit", delay=f"{round_trip_ms / 2:g}ms", loss=loss, queue=queue)
        yield scene


def run(
    scene: Stage,
    kind: str,
    control: str,
    *,
    flows: int = 1,
    warm: float = 0.0,
    seconds: float = 0.0,
    size: int = 0,
) -> Result:
    """`flows` at once of "xia" or "tcp", each for `warm` + `seconds` (the latter count) or of `size` bytes.

    Raises XiatbError, DeadlineError."""
    amount = f"bytes:{size}" if size else f"seconds:{warm + seconds + 0.5}"
    with scene.app(RIGHT, "sink", kind, str(flows), str(warm), str(seconds), module=_APP) as sink:
        where = sink.line() if kind == "xia" else f"{address(RIGHT)}:{sink.line()}"
        words = ("source", kind, control, where, str(flows), amount)
        with scene.app(LEFT, *words, module=_APP) as source:
            began = float(source.line())
            told = json.loads(sink.line())
            source.finish(_PATIENCE)
        sink.finish(_PATIENCE)
    if not told["last"]:
        raise XiatbError(f"{kind} {control}: nothing arrived")
    return Result([rate / 1e6 for rate in told["rates"]], told["last"] - began)
