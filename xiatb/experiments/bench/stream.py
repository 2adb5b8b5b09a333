"""Goodput of a stream: over kernel TCP without offloads, and of what a shaped link has room for."""

from __future__ import annotations

import json
import math
import shutil

from xiatb.errors import XiatbError
from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.bench.stage import PAIRS, Stage, address, stage
from xiatb.transport.packets import STAMPED_HEADER

NAME = "stream"
BARS = {1500: Bar(least=0.35), 9000: Bar(least=0.6)}
SHAPED_BARS = {100: Bar(least=0.97), 1000: Bar(least=0.95)}
"""by Mbit/s"""
_XIP, _ETHERNET = 8, 14
_PATIENCE = 30.0


def xia(scene: Stage, mtu: int, seconds: float) -> tuple[float, int]:
    """(Mbit/s, bytes of both addresses in each packet) between the two hosts of an MTU."""
    left, right = PAIRS[mtu]
    with scene.app(right, "xia-sink") as sink:
        with scene.app(left, "xia-source", sink.line(), str(seconds)) as source:
            addresses = int(source.line())
            rate = float(sink.line()) / 1e6
            source.finish(_PATIENCE)
        sink.finish(_PATIENCE)
    return rate, addresses


def tcp(scene: Stage, mtu: int, seconds: float) -> float:
    """Mbit/s of kernel TCP between the same hosts, through the same router's kernel: by iperf3 where that is
    installed, because Python does not get all out of TCP at MTU 9000."""
    left, right = PAIRS[mtu]
    if shutil.which("iperf3"):
        return _iperf3(scene, left, right, seconds)
    with (
        scene.app(right, "tcp-sink") as sink,
        scene.app(left, "tcp-source", address(right), sink.line(), str(seconds)) as source,
    ):
        source.line()
        rate = float(sink.line()) / 1e6
        source.finish(_PATIENCE)
    return rate


def _iperf3(scene: Stage, left: str, right: str, seconds: float) -> float:
    with scene.program(right, ["iperf3", "--server", "--one-off", "--forceflush"]) as server:
        while "listening" not in server.line():
            pass
        words = ["--client", address(right), "--time", str(math.ceil(seconds)), "--json"]
        with scene.program(left, ["iperf3", *words]) as client:
            told = json.loads(client.rest())
            client.finish(_PATIENCE)
    if "error" in told:
        raise XiatbError(f"iperf3: {told['error']}")
    return float(told["end"]["sum_received"]["bits_per_second"]) / 1e6


def room(mbit: float, mtu: int, addresses: int) -> float:
    """Mbit/s that headers leave of a link: of every frame of MTU and Ethernet header, what is no header."""
    return mbit * (mtu - _XIP - addresses - STAMPED_HEADER) / (mtu + _ETHERNET)


def measure(runs: int, seconds: float) -> list[Figure]:
    """XIA and TCP by turns in one lab; then the shaped link."""
    long = 1 + 2 * seconds
    figures = []
    with stage() as scene:
        for mtu, bar in BARS.items():
            figure = Figure(NAME, f"XIA over kernel TCP, offloads off, MTU {mtu}", bar, unit="Mbit/s")
            for _ in range(runs):
                baseline = tcp(scene, mtu, long)
                figure.add(xia(scene, mtu, long)[0], baseline)
            figures.append(figure)
        for mbit, bar in SHAPED_BARS.items():
            scene.set_link("h1", rate=f"{mbit}mbit")
            figure = Figure(NAME, f"of the room on {mbit} Mbit/s, MTU 1500", bar, unit="Mbit/s")
            for _ in range(runs):
                rate, addresses = xia(scene, 1500, long)
                figure.add(rate, room(mbit, 1500, addresses))
            figures.append(figure)
    return figures
