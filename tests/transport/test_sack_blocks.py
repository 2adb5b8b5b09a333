"""Which ranges an acknowledgement reports when many segments came since the last one."""

from __future__ import annotations

from xiatb.transport.reassembly import ReceiveBuffer

SIZE = 1000


def holding(*segments: int) -> ReceiveBuffer:
    """What a receiver has that got these segments of 1000 bytes, in this order, but not the first one."""
    received = ReceiveBuffer(0, 1 << 20)
    for number in segments:
        received.insert(number * SIZE, bytes(SIZE))
    return received


def blocks(received: ReceiveBuffer, limit: int = 6) -> list[tuple[int, int]]:
    return [(left // SIZE, right // SIZE) for left, right in received.sack_blocks(limit)]


def test_a_batch_that_fills_one_range_does_not_push_out_the_others() -> None:
    received = holding(*range(1, 40), *range(50, 90), *range(100, 160))
    assert blocks(received) == [(100, 160), (50, 90), (1, 40)]


def test_the_range_changed_last_comes_first() -> None:
    received = holding(1, 3, 5, 4)
    assert blocks(received) == [(3, 6), (1, 2)]
    received.insert(7 * SIZE, bytes(SIZE))
    assert blocks(received) == [(7, 8), (3, 6), (1, 2)]


def test_ranges_that_were_merged_take_one_place() -> None:
    received = holding(1, 3, 5, 7, 9, 11, 13, 15, 2, 4, 6, 8, 17)
    assert blocks(received) == [(17, 18), (1, 10), (15, 16), (13, 14), (11, 12)]
    assert blocks(received, 2) == [(17, 18), (1, 10)]
