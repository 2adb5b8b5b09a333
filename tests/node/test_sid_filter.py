"""The filters against an interpreter of classic BPF that knows just their instructions."""

from __future__ import annotations

import random
import struct

import pytest

from xiatb.node import sid_filter
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType


def run(program: list[sid_filter.Instruction], frame: bytes) -> int:
    """What the kernel would return; a load beyond the frame returns 0."""
    a = x = at = 0
    while True:
        code, jt, jf, k = program[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x15:
            at += jt if a == k else jf
        elif code == 0x07:
            x = a
        elif code == 0x14:
            a = (a - k) & 0xFFFFFFFF
        elif code == 0x24:
            a = (a * k) & 0xFFFFFFFF
        else:
            size, offset = {0x28: (2, k), 0x30: (1, k), 0x40: (4, x + k)}[code]
            if offset + size > len(frame):
                return 0
            a = int.from_bytes(frame[offset : offset + size], "big")


def some_xid(rng: random.Random, kind: int) -> XID:
    return XID(kind, rng.randbytes(20))


def frame(dst: DAG, src: DAG, ethertype: int = 0xC0DE) -> bytes:
    return bytes(12) + ethertype.to_bytes(2, "big") + xip.build(xip.NXT_DATA, dst, src, b"payload")


def test_match_takes_only_its_sid() -> None:
    rng = random.Random(1)
    ad, hid = some_xid(rng, XidType.AD), some_xid(rng, XidType.HID)
    sid, other = some_xid(rng, XidType.SID), some_xid(rng, XidType.SID)
    program = sid_filter.match_intent(sid.key)
    source = DAG.host(ad, hid)
    for destination in (DAG.service(ad, hid, sid), DAG.chain(sid), DAG.chain(ad, hid, sid)):
        assert run(program, frame(destination, source)) > 0
        assert run(program, frame(destination.with_intent(other), source)) == 0
        assert run(program, frame(destination, source, ethertype=0x0800)) == 0
    # The same id under another type is another XID.
    assert run(program, frame(DAG.chain(XID(XidType.CID, sid.id)), source)) == 0
    assert run(program, frame(DAG.chain(sid, ad, hid), source)) == 0


def test_exclude_is_the_complement() -> None:
    rng = random.Random(2)
    source = DAG.host(some_xid(rng, XidType.AD), some_xid(rng, XidType.HID))
    sids = [some_xid(rng, XidType.SID) for _ in range(sid_filter.MAX_EXCLUDED)]
    program = sid_filter.exclude_intents(sid.key for sid in sids)
    assert len(program) <= 4096
    for sid in (sids[0], sids[100], sids[-1]):
        assert run(program, frame(DAG.chain(sid), source)) == 0
    assert run(program, frame(DAG.chain(some_xid(rng, XidType.SID)), source)) > 0
    assert run(program, bytes(12) + b"\x99\x90" + bytes(68)) > 0


def test_exclude_refuses_too_many() -> None:
    with pytest.raises(sid_filter.FilterError):
        sid_filter.exclude_intents([bytes(24)] * (sid_filter.MAX_EXCLUDED + 1))


@pytest.mark.parametrize("length", [0, 13, 14, 19, 20, 30, 60])
def test_truncated_frames_never_match(length: int) -> None:
    sid = XID(XidType.SID, bytes(range(20)))
    whole = frame(DAG.chain(sid), DAG.chain(sid))
    whole = whole[:length]
    assert run(sid_filter.match_intent(sid.key), whole) == (0 if length < 46 else sid_filter._ACCEPT)


def test_random_bytes_never_fault() -> None:
    rng = random.Random(3)
    sid = XID(XidType.SID, bytes(20))
    programs = [sid_filter.match_intent(sid.key), sid_filter.exclude_intents([sid.key])]
    for _ in range(2000):
        data = bytearray(rng.randbytes(rng.randrange(120)))
        if len(data) > 14:
            data[12:14] = b"\xc0\xde"
        for program in programs:
            run(program, bytes(data))


def test_assemble_is_eight_bytes_an_instruction() -> None:
    program = sid_filter.match_intent(bytes(24))
    code = sid_filter.assemble(program)
    assert len(code) == 8 * len(program)
    assert struct.unpack_from("=HBBI", code) == program[0]
