"""Trains: batch.c against its specification in Python, without sockets."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xiatb.fastpath import batch, build, trains
from xiatb.wire import xip, xstream
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

ETHERNET = b"\2\0\0\0\0\1" + b"\2\0\0\0\0\2" + b"\xc0\xde"
HERE = DAG.chain(XID(XidType.AD, bytes(20)), XID(XidType.SID, b"h" * 20))
THERE = DAG.chain(XID(XidType.SID, b"t" * 20))
PLAIN = xstream.ACK
PUSHED = xstream.ACK | xstream.PUSH


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> batch.HelperBatch:
    """What set-up compiled, or a library of our own when the source is newer."""
    path = batch.LIBRARY_PATH
    if not build.is_fresh(path, build.BATCH_SOURCE_PATH):
        path = tmp_path_factory.mktemp("batch") / "libxiabatch.so"
        build.compile_batch(path)
    return batch.HelperBatch.load(path)


def segment(
    seq: int, payload: bytes, *, flags: int = PLAIN, ack: int = 1, stamp: int | None = 5, win: int = 9,
    echo: int = 77, to: DAG = THERE, options: xstream.Options | None = None,
) -> bytes:  # fmt: skip
    """One Ethernet frame with a stream segment."""
    if options is None and stamp is not None:
        options = xstream.Options(timestamp=(stamp, echo))
    body = xstream.pack(flags, seq, ack, win, options) + payload
    return ETHERNET + xip.build(xip.NXT_XSTREAM, to, HERE, body)


def joined(frames: list[bytes]) -> list[tuple[bytes, bytes, int]]:
    return plain(trains.join([memoryview(frame) for frame in frames]))


def plain(got: list[trains.Train]) -> list[tuple[bytes, bytes, int]]:
    return [(bytes(header), payload, segments) for header, payload, segments in got]


def test_neighbours_become_one(helper: batch.HelperBatch) -> None:
    frames = [
        segment(0xFFFFFFF0, b"a" * 100, ack=1, stamp=5, win=1),
        segment(0x54, b"b" * 100, ack=3, stamp=6, win=2, flags=PUSHED) + b"\0" * 4,
        segment(0xB8, b"c" * 60, ack=3, stamp=6, win=2, echo=78),
        segment(0xF4, b"d" * 60),
    ]
    got = joined(frames)
    assert [(len(payload), segments) for _, payload, segments in got] == [(260, 3), (0, 1)]
    assert got[0][1] == b"a" * 100 + b"b" * 100 + b"c" * 60
    nxt, plen, *_, at = xip.parse_fast(got[0][0] + bytes(200))
    header = xstream.parse(got[0][0], at)
    assert (nxt, plen) == (xip.NXT_XSTREAM, 128)
    assert (header.seq, header.ack, header.win, header.flags) == (0xFFFFFFF0, 3, 2, PUSHED)
    assert header.options.timestamp == (5, 78) and len(got[0][0]) == at + 28
    assert got[1][0] == frames[3][14:]
    assert plain(helper.join(frames)) == got


@pytest.mark.parametrize(
    "second",
    [
        segment(201, b"x" * 100),
        segment(199, b"x" * 100),
        segment(200, b"x" * 101),
        segment(200, b""),
        segment(200, b"x" * 100, ack=0),
        segment(200, b"x" * 100, stamp=4),
        segment(200, b"x" * 100, stamp=None),
        segment(200, b"x" * 100, flags=PLAIN | xstream.FIN),
        segment(200, b"x" * 100, flags=PLAIN | xstream.ECE),
        segment(200, b"x" * 100, flags=PLAIN | xstream.NS),
        segment(200, b"x" * 100, flags=PLAIN | xstream.SYN),
        segment(200, b"x" * 100, flags=xstream.PUSH),
        segment(200, b"x" * 100, to=HERE),
        segment(200, b"x" * 100, options=xstream.Options(timestamp=(5, 77), sack=((1, 2),))),
        segment(200, b"x" * 100, options=xstream.Options(mss=7, wscale=2, sack_permitted=True)),
        segment(200, b"x" * 100)[:-1],
        ETHERNET + xip.build(xip.NXT_XDGRAM, THERE, HERE, b"x" * 128),
        segment(200, b"x" * 100)[:18] + b"\7" + segment(200, b"x" * 100)[19:],
        b"",
        ETHERNET,
    ],
)  # fmt: skip
def test_others_stay_alone(helper: batch.HelperBatch, second: bytes) -> None:
    first = segment(100, b"x" * 100)
    for frames in ([first, second], [first, second, first], [second, first], [second, second]):
        got = joined(frames)
        assert got == [(frame[14:], b"", 1) for frame in frames]
        assert plain(helper.join(frames)) == got


_VARIED = st.builds(
    segment,
    st.sampled_from([0, 10, 20, 30, 40, 0xFFFFFFF6, 1 << 31]),
    st.sampled_from([b"", b"p" * 5, b"q" * 10, b"r" * 10, b"s" * 20]),
    flags=st.sampled_from([PLAIN, PLAIN, PLAIN, PUSHED, PLAIN | xstream.FIN, xstream.SYN]),
    ack=st.sampled_from([1, 2, 0xFFFFFFFF, 1 << 31]),
    stamp=st.sampled_from([5, 5, 6, 0xFFFFFFFF, None]),
    echo=st.integers(0, 3),
    to=st.sampled_from([THERE, THERE, HERE]),
)


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """A frame, cut anywhere or with bytes changed, or what has never been one."""
    frame = bytearray(draw(_VARIED))
    for _ in range(draw(st.integers(0, 2))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.one_of(st.just(len(frame)), st.integers(0, len(frame))))])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(_VARIED, hostile(), st.binary(max_size=60)), max_size=batch.BURST))
def test_helper_joins_as_specified(helper: batch.HelperBatch, frames: list[bytes]) -> None:
    assert plain(helper.join(frames)) == joined(frames)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 5000),
    st.integers(1, 700),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from([PLAIN, PUSHED]),
    st.sampled_from([None, 3]),
)
def test_cut_and_joined_again(
    helper: batch.HelperBatch, size: int, mss: int, seq: int, flags: int, stamp: int | None
) -> None:
    payload = random.Random(size).randbytes(size)
    header = segment(seq, payload[:mss], flags=flags, stamp=stamp)[14 : -len(payload[:mss])]
    cut = list(trains.all_segments(header, payload, mss))[: batch.BURST]
    assert b"".join(share for _, share in cut) == payload[: batch.BURST * mss]
    frames = [ETHERNET + head + bytes(share) for head, share in cut]
    if len(cut) == 1:
        assert joined(frames) == [(frames[0][14:], b"", 1)]
        return
    ((whole, together, segments),) = got = joined(frames)
    assert (together, segments) == (payload[: batch.BURST * mss], len(cut))
    complete = len(cut) == trains.count(payload, mss)
    assert whole == (header if complete or flags == PLAIN else cut[0][0])
    assert plain(helper.join(frames)) == got


def test_largest_frames(helper: batch.HelperBatch) -> None:
    """Slots must not run into each other while they are joined, and a train has a largest size."""
    for size, together in ((65535 - 28, 1), (32768, 2), (32000, 2), (9000, 7)):
        frames = [segment(i * size, bytes([i]) * size) for i in range(batch.BURST)]
        got = plain(helper.join(frames))
        assert got == joined(frames)
        assert got[0][2] == together and sum(segments for *_, segments in got) == batch.BURST
    frames = [segment(0, b"a" * 65507), segment(65507, b"b" * 29)]
    assert plain(helper.join(frames)) == joined(frames) and len(joined(frames)[0][1]) == 65536


def test_kind_is_chosen(tmp_path: Path) -> None:
    script = "from xiatb.fastpath import batch; print(batch.shared().kind, batch.loaded()[1])"
    environment = {**os.environ, batch.OFF_VARIABLE: "1"}
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"python {batch.OFF_VARIABLE} is set\n"
    with pytest.raises(OSError, match="none"):
        batch.HelperBatch.load(tmp_path / "none.so")
