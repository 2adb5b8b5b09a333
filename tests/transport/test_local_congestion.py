"""A socket that refuses packets (ENOBUFS): local congestion, neither a stall nor a storm."""

from __future__ import annotations

import pytest

from tests.transport.simpath import Simulation
from tests.transport.transfer import Transfer
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.packets import Out, Packet, lone_packets


def _refusing(transfer: Transfer, room: float) -> list[int]:
    """Give `a` a local queue that drains at `room` packets a second and holds 20; return a counter."""
    endpoint: Endpoint = transfer.a
    sim: Simulation = transfer.sim
    real = endpoint.transmit
    level = [0.0, sim.now]
    refused = [0]

    def transmit(now: float, budget: int = 64) -> list[Out]:
        out = real(now, budget)
        level[0] = max(0.0, level[0] - (now - level[1]) * room)
        level[1] = now
        taken: list[Out] = []
        rest: list[Packet] = []
        for packet in lone_packets(out):
            if level[0] + 1 > 20:
                rest.append(packet)
            else:
                level[0] += 1
                taken.append(packet)
        if rest:
            refused[0] += len(rest)
            endpoint.not_sent(rest, now)
        return taken

    endpoint.transmit = transmit  # type: ignore[method-assign]
    return refused


@pytest.mark.parametrize("control", ["cubic", "reno", "bbr"])
def test_a_full_local_queue_slows_the_stream_without_time_outs(control: str) -> None:
    transfer = Transfer(3_000_000, seed=4, config={"congestion": control}, delay=0.01)
    refused = _refusing(transfer, 4000.0)
    transfer.run()
    stats = transfer.stream.stats()
    assert stats["refused"] == refused[0] > 0
    assert stats["timeouts"] == 0
    assert transfer.goodput > 0.5 * 4000 * 1296 * 8


def test_a_dead_local_queue_is_tried_ever_more_rarely() -> None:
    transfer = Transfer(200_000, seed=4, delay=0.01)
    transfer.sim.run(0.05, transfer.pump)
    refused = _refusing(transfer, 0.0)
    transfer.sim.run(3.0, transfer.pump)
    assert 0 < refused[0] < 200
