"""The list of packets that wait for addresses of neighbours."""

from __future__ import annotations

from xiatb.click.context import ManualContext
from xiatb.click.packet import Packet
from xiatb.click.waiting import PER_NEIGHBOUR, WaitingList


class Ground:
    """A list with two requests a second apart, and what it asked for and gave up."""

    def __init__(self) -> None:
        self.ctx = ManualContext()
        self.asked: list[tuple[float, bytes]] = []
        self.failed: list[Packet] = []
        self.waiting = WaitingList(
            lambda delay, fn: self.ctx.call_at(self.ctx.now() + delay, fn),
            1.0, 2, lambda key: self.asked.append((self.ctx.now(), key)), self.failed.append,
        )  # fmt: skip


def packet() -> Packet:
    return Packet(bytearray(64))


def test_silent_neighbours_are_asked_for_and_given_up() -> None:
    ground = Ground()
    packets = [packet() for _ in range(3)]
    assert [ground.waiting.add(b"a", p) for p in packets[:2]] == [0, 0]
    ground.ctx.advance(0.5)
    ground.waiting.add(b"b", packets[2])
    assert len(ground.waiting) == 2 and b"a" in ground.waiting and b"c" not in ground.waiting
    ground.ctx.advance(1.4)
    assert ground.asked == [(0.0, b"a"), (0.5, b"b"), (1.0, b"a"), (1.5, b"b")]
    assert not ground.failed and ground.waiting.packets == 3
    ground.ctx.advance(0.2)
    assert ground.failed == packets[:2] and ground.waiting.packets == 1
    ground.ctx.advance(10.0)
    assert ground.failed == packets and len(ground.waiting) == 0 and ground.ctx.pending() == 0


def test_a_neighbour_found_gets_its_packets_in_order_and_is_asked_for_no_more() -> None:
    ground = Ground()
    packets = [packet() for _ in range(PER_NEIGHBOUR + 2)]
    assert sum(ground.waiting.add(b"a", p) for p in packets) == 2
    assert list(ground.waiting.take(b"a")) == packets[2:]
    assert ground.waiting.packets == 0 and ground.ctx.pending() == 0 and not ground.waiting.take(b"a")
    assert ground.waiting.add(b"a", packets[0]) == 0 and len(ground.asked) == 2
    ground.waiting.close()
    assert ground.ctx.pending() == 0
