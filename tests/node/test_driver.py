"""What an endpoint's driver does with packets that the kernel drops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.fastpath.test_batch import ETHERNET, segment
from xiatb.fastpath import trains
from xiatb.node.driver import EndpointDriver


class FullSocket:
    """Drops what its lists say; keeps what it was given."""

    def __init__(self, lone: list[bool], dropped: list[int]) -> None:
        self.lone, self.dropped = lone, dropped
        self.sent: list[tuple[Any, ...]] = []

    def send_parts(self, parts: tuple[Any, ...]) -> bool:
        self.sent.append(parts)
        return self.lone.pop(0)

    def send_train(self, *train: Any) -> list[int]:
        self.sent.append(train)
        return self.dropped


def test_dropped_segments_of_a_train_are_told_one_by_one() -> None:
    payload = bytes(range(250)) * 4
    first = segment(100, payload[:300])[14:]
    header = first[:-300]
    outs = [(b"one", b"x"), (header, payload, 300), (b"two", b"y")]
    sock = FullSocket([True, False], [1, 3])
    driver: Any = SimpleNamespace(_socket=sock, _ethernet=ETHERNET)
    refused = EndpointDriver._send(driver, outs)
    assert sock.sent == [
        (ETHERNET, b"one", b"x"), (ETHERNET, header, payload, 300), (ETHERNET, b"two", b"y")
    ]  # fmt: skip
    every = list(trains.all_segments(header, payload, 300))
    assert refused == [every[1], every[3], (b"two", b"y")]
    assert [bytes(share) for _, share in every] == [payload[i : i + 300] for i in range(0, 1000, 300)]
    at = trains.stream_offset(header)
    assert [int.from_bytes(head[at + 4 : at + 8], "big") for head, _ in every] == [100, 400, 700, 1000]
