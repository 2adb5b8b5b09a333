"""A link that only loses frames, in the kernel: the eBPF program of a middle's end.

It does what `DelayQueue` does with the same numbers: a Markov chain of two states (Gilbert-Elliott,
tc-netem(8)) that moves first, then the share lost in the state that it was in. Independent losses are a chain
that stays where it is. The draws come from an xorshift64* generator (Vigna, "An experimental exploration of
Marsaglia's xorshift generators, scrambled", 2016) with the link's own seed. Frames of one direction are drawn
for one after another, except where a sender uses several CPUs at once: two frames may then draw the same.

The program's map has two values of four u64 (host byte order): the numbers, written by us, and the state,
written by the program, so that new numbers disturb no counter.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from xiatb.lab.plan import Impairment

VALUE = struct.Struct("=QQQQ")
NUMBERS, STATE = 0, 1
"""Keys of the map."""

_ALWAYS = 1 << 32
_SCRAMBLE = 0x2545F4914F6CDD1D
_LOOK_UP, _REDIRECT = 1, 23
_SHOT = 2
_TO_BAD, _TO_GOOD, _LOST_BAD, _LOST_GOOD = 0, 8, 16, 24
_TAKEN, _LOST, _BAD, _RANDOM = 0, 8, 16, 24


class LossCounters(NamedTuple):
    """Frames that came in, and those of them that were lost."""

    taken: int
    lost: int


def loses_only(one: Impairment) -> bool:
    """Whether frames are lost in a direction and nothing else but a rate is asked for."""
    others = one.delay or one.jitter or one.duplicate or one.reorder
    return bool(one.loss or one.gemodel) and not others


def numbers(one: Impairment) -> bytes:
    """The first value of the map: good to bad, bad to good, lost while bad, lost while good; 2^32 is 1."""
    p, r, bad, good = one.loss_chain or (0.0, 1.0, one.loss / 1e6, one.loss / 1e6)
    return VALUE.pack(*(round(share * _ALWAYS) for share in (p, r, bad, good)))


def fresh_state(seed: int) -> bytes:
    """The second value at the beginning: nothing counted, in the good state. Any seed will do."""
    return VALUE.pack(0, 0, 0, seed % (1 << 64) or _SCRAMBLE)


def counters(state: bytes) -> LossCounters:
    """What the second value says."""
    return LossCounters(*VALUE.unpack(state)[:2])


def loss_program(ifindex: int, map_fd: int) -> bytes:
    """eBPF: lose the frame by the numbers of the map, or bpf_redirect(ifindex, 0)."""
    forward = [
        _op(0xB4, 1, value=ifindex),  # w1 = ifindex
        _op(0xB4, 2),  # w2 = 0
        _op(0x85, value=_REDIRECT),
        _op(0x95),  # exit with what it says
    ]
    lose = [
        _op(0xB7, 1, value=1),
        _op(0xDB, 7, 1, _LOST),  # lock state.lost += 1
        _op(0xB7, 0, value=_SHOT),
        _op(0x95),
    ]
    fate = [*_draw(), _op(0x7B, 7, 9, _RANDOM), _op(0x3D, 8, 5, len(lose)), *lose]  # draw >= r5: not lost
    begin = [*_look_up(map_fd, NUMBERS, 6), *_look_up(map_fd, STATE, 7)]
    program = [*begin, _op(0xB7, 1, value=1), _op(0xDB, 7, 1, _TAKEN), _op(0x79, 9, 7, _RANDOM)]
    program += [*_draw(), *_move(), *fate]
    # Without its map, which cannot be, it forwards.
    for place, (code, register, source, offset, value) in enumerate(program):
        if offset == _TO_FORWARD:
            program[place] = (code, register, source, len(program) - place - 1, value)
    return b"".join(
        struct.pack("=BBhi", code, source << 4 | register, offset, value)
        for code, register, source, offset, value in program + forward
    )


_TO_FORWARD = 0x7FFF
Instruction = tuple[int, int, int, int, int]


def _op(code: int, register: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> Instruction:
    return code, register, source, offset, value


def _look_up(map_fd: int, key: int, register: int) -> list[Instruction]:
    """`register` = the map's value for `key`."""
    return [
        _op(0x62, 10, 0, -4, key),  # *(u32 *)(r10 - 4) = key
        _op(0xBF, 2, 10),
        _op(0x07, 2, value=-4),
        _op(0x18, 1, 1, 0, map_fd),  # r1 = map, two instructions
        _op(0x00),
        _op(0x85, value=_LOOK_UP),
        _op(0x15, 0, 0, _TO_FORWARD),
        _op(0xBF, register, 0),
    ]


def _draw() -> list[Instruction]:
    """r8 = a number below 2^32; r9 is the generator's state. Changes r1."""
    steps = []
    for code, bits in ((0x67, 13), (0x77, 7), (0x67, 17)):
        steps += [_op(0xBF, 1, 9), _op(code, 1, value=bits), _op(0xAF, 9, 1)]  # r9 ^= r9 shifted
    low, high = struct.unpack("=ii", struct.pack("=Q", _SCRAMBLE))
    steps += [_op(0x18, 8, value=low), _op(0x00, value=high)]
    return [*steps, _op(0x2F, 8, 9), _op(0x77, 8, value=32)]  # r8 *= r9; r8 >>= 32


def _move() -> list[Instruction]:
    """The chain moves by the draw in r8; r5 = share that is lost in the state it was in."""
    bad = [
        _op(0x79, 5, 6, _LOST_BAD),
        _op(0x79, 2, 6, _TO_GOOD),
        _op(0xB7, 3, value=1),
        _op(0x3D, 8, 2, 1),  # draw >= share: stays
        _op(0xB7, 3, value=0),
    ]
    good = [
        _op(0x79, 5, 6, _LOST_GOOD),
        _op(0x79, 2, 6, _TO_BAD),
        _op(0xB7, 3, value=0),
        _op(0x3D, 8, 2, 1),
        _op(0xB7, 3, value=1),
        _op(0x05, offset=len(bad)),
    ]
    return [_op(0x79, 1, 7, _BAD), _op(0x55, 1, 0, len(good)), *good, *bad, _op(0x7B, 7, 3, _BAD)]
