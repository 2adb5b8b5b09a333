"""Bursts over a veth pair: both ways of `Batch` against each other."""

from __future__ import annotations

import errno
import select
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.fastpath.test_batch import ETHERNET, PUSHED, joined, plain, segment
from tests.node.namespaces import Namespaces, ip, needs_root
from xiatb.fastpath import batch, build, trains
from xiatb.node import rtnetlink

pytestmark = [needs_root, pytest.mark.netns]
MTU = 1500


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> batch.HelperBatch:
    path = tmp_path_factory.mktemp("batch") / "libxiabatch.so"
    build.compile_batch(path)
    return batch.HelperBatch.load(path)


@pytest.fixture(params=["c", "python"])
def way(request: pytest.FixtureRequest, library: batch.HelperBatch) -> batch.Batch:
    return library if request.param == "c" else batch.PlainBatch()


def until_up(name: str) -> None:
    """Waits for the carrier: before, the kernel throws frames away and says that it has sent them."""
    end = time.monotonic() + 10
    while (link := rtnetlink.get_link(name)) is None or not link.up:
        assert time.monotonic() < end, f"{name} does not come up"
        time.sleep(0.001)


@pytest.fixture
def pair(namespaces: Namespaces) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Packet sockets at the two ends of a link between namespaces a and b."""
    for name in "ab":
        namespaces.add(name)
    namespaces.link("a", "eth0", "b", "eth0", mtu=MTU)
    ends = []
    for name in "ab":
        with namespaces.entered(name):
            end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            end.setsockopt(263, 23, 1)
            end.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
            end.bind(("eth0", 0xC0DE))
            ends.append(end)
            until_up("eth0")
    yield ends[0], ends[1]
    for end in ends:
        end.close()


def waiting(way: batch.Batch, sock: socket.socket, count: int) -> list[bytes]:
    """`count` frames, or what came within two seconds."""
    got: list[bytes] = []
    while len(got) < count and select.select([sock], [], [], 2.0)[0]:
        got += map(bytes, way.frames(sock))
    return got


def test_frames_pass_in_order(way: batch.Batch, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    frames = [ETHERNET + bytes([number]) * (46 + 10 * number) for number in range(100)]
    assert way.send(left, [*frames[:50], *map(bytearray, frames[50:])]) == []
    assert waiting(way, right, 100) == frames
    assert way.frames(right) == [] and way.received == 0
    assert way.send(left, []) == []
    way.send(left, frames[:3])
    assert select.select([right], [], [], 2.0)[0]
    assert len(way.frames(right, 2)) == 2 and way.received == 2 and len(way.frames(right, 2)) == 1


@pytest.mark.parametrize("size", [1, 99, 100, 101, 6400, 13050])
def test_train_is_cut(way: batch.Batch, pair: tuple[socket.socket, socket.socket], size: int) -> None:
    left, right = pair
    payload = bytes(number % 251 for number in range(size))
    first = segment(0xFFFFFF00, payload[:100], flags=PUSHED)
    header = first[14 : len(first) - len(payload[:100])]
    wanted = [ETHERNET + head + bytes(share) for head, share in trains.all_segments(header, payload, 100)]
    for kind in (payload, memoryview(payload), bytearray(payload)):
        assert way.send_train(left, ETHERNET, header, kind, 100) == []
        assert waiting(way, right, len(wanted)) == wanted
    assert way.send_train(left, ETHERNET, header, payload, 100) == []
    assert select.select([right], [], [], 2.0)[0]
    some = wanted[: batch.BURST]
    assert plain(way.trains(right)) == joined(some) and way.received == len(some)


def test_refused_ones_do_not_stop_the_others(
    way: batch.Batch, pair: tuple[socket.socket, socket.socket], namespaces: Namespaces
) -> None:
    left, right = pair
    frames = [ETHERNET + bytes([number]) * (3000 if number % 3 == 1 else 60) for number in range(70)]
    assert way.send(left, frames) == [number for number in range(70) if number % 3 == 1]
    assert waiting(way, right, 47) == [frame for frame in frames if len(frame) < MTU]
    tc = ["tc", "-n", namespaces["a"], "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8kbit"]
    subprocess.run([*tc, "burst", "3000", "limit", "6000"], check=True, timeout=20)
    first = segment(7, bytes(1000))
    refused = way.send_train(left, ETHERNET, first[14:-1000], bytes(50_000), 1000)
    assert refused and refused == sorted(set(refused)) and 0 not in refused and refused[-1] == 49


def test_link_down_and_worse(
    way: batch.Batch, pair: tuple[socket.socket, socket.socket], namespaces: Namespaces
) -> None:
    left, right = pair
    ip("-n", namespaces["b"], "link", "set", "eth0", "down")
    assert select.select([right], [], [], 2.0)[0]
    with pytest.raises(OSError) as caught:
        way.trains(right)
    assert caught.value.errno == errno.ENETDOWN and way.received == 0
    assert way.send(right, [ETHERNET + bytes(60)] * 2) == [0, 1]
    left.close()
    with pytest.raises(OSError) as caught:
        way.send(left, [ETHERNET + bytes(60)])
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("mss", [0, 70_000])
def test_impossible_trains(library: batch.HelperBatch, mss: int) -> None:
    """batch.c refuses what would not fit its memory or the header's fields."""
    first = segment(7, bytes(1000))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for header, payload, size in (
            (first[14:-1000], bytes(10), mss),
            (first[14:30], bytes(10), 5),
            (first[14:] + bytes(1000), bytes(10), 5),
            (first[14:-1000], b"", 5),
            (first[14:-1000], bytes(5000), 1),
        ):
            with pytest.raises(OSError) as caught:
                library.send_train(sock, ETHERNET, header, payload, size)
            assert caught.value.errno == errno.EINVAL
