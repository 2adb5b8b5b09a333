"""The kernel's losses against the delay line's: the same numbers must mean the same."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator

import pytest

from tests.lab.labs import needs_root
from xiatb.fastpath import bpf
from xiatb.lab import lossprogram
from xiatb.lab.delayqueue import DelayQueue
from xiatb.lab.plan import Impairment

pytestmark = [pytest.mark.netns, needs_root]
FRAMES = 60_000
FRAME = bytes(64)
SHOT, REDIRECTED = 2, 7
KINDS = {
    "random": Impairment(loss=20_000),
    "rare": Impairment(loss=1_000),
    "bursts": Impairment(loss=20_000, burst=8),
    "gemodel": Impairment(gemodel=(50_000, 300_000, 500_000, 10_000)),
}


class Program:
    """A loaded program with its map."""

    def __init__(self, one: Impairment, seed: int) -> None:
        self.map = bpf.new_array(lossprogram.VALUE.size, 2)
        self.table = bpf.Map(self.map, 4, lossprogram.VALUE.size)
        self.set(one)
        self.table.update(struct.pack("=I", lossprogram.STATE), lossprogram.fresh_state(seed))
        self.program = bpf.load_classifier(lossprogram.loss_program(1, self.map), b"MIT", b"xiatb_test")

    def set(self, one: Impairment) -> None:
        self.table.update(struct.pack("=I", lossprogram.NUMBERS), lossprogram.numbers(one))

    def fates(self, count: int) -> list[bool]:
        verdicts = [bpf.test_run(self.program, FRAME, 1).verdict for _ in range(count)]
        assert set(verdicts) <= {SHOT, REDIRECTED}
        return [verdict == SHOT for verdict in verdicts]

    def counters(self) -> lossprogram.LossCounters:
        return lossprogram.counters(self.table.lookup(struct.pack("=I", lossprogram.STATE)))

    def close(self) -> None:
        os.close(self.program)
        os.close(self.map)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    made: list[Program] = []
    yield made
    for one in made:
        one.close()


def delay_line(one: Impairment, count: int) -> list[bool]:
    queue, fates = DelayQueue(one, random.Random(3)), []
    for number in range(count):
        before = queue.lost
        queue.push(FRAME, number)
        fates.append(queue.lost > before)
        queue.pop_due(number)
    return fates


def runs(fates: list[bool]) -> list[int]:
    return [len(run) for run in "".join("x" if lost else " " for lost in fates).split()]


def distance(a: list[int], b: list[int]) -> float:
    """Kolmogorov and Smirnov's: the greatest difference of the shares of runs up to a length."""
    return max(
        abs(sum(run <= length for run in a) / len(a) - sum(run <= length for run in b) / len(b))
        for length in {*a, *b}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rate_and_bursts_are_those_of_the_delay_line(kind: str, programs: list[Program]) -> None:
    one = KINDS[kind]
    programs.append(Program(one, 7))
    kernel, line = programs[0].fates(FRAMES), delay_line(one, FRAMES)
    taken, lost = programs[0].counters()
    assert (taken, lost) == (FRAMES, sum(kernel))
    # Losses of a chain come together: their number spreads as that of independent runs does.
    spread = (one.mean_loss * max(one.burst, 2 if one.gemodel else 1) * 2 / FRAMES) ** 0.5
    for fates in (kernel, line):
        assert abs(sum(fates) / FRAMES - one.mean_loss) < 4 * spread
    a, b = runs(kernel), runs(line)
    # 1.95: 0.1 % of equal distributions are further apart
    assert distance(a, b) < 1.95 * ((len(a) + len(b)) / (len(a) * len(b))) ** 0.5
    if one.burst:
        assert sum(a) / len(a) == pytest.approx(one.burst, rel=0.3)


def test_the_seed_repeats_it_and_another_does_not(programs: list[Program]) -> None:
    one = Impairment(loss=500_000)
    programs += [Program(one, seed) for seed in (7, 7, 8, 0)]
    first, again, other, zero = (program.fates(500) for program in programs)
    assert first == again != other
    assert 180 < sum(zero) < 320, "a seed of 0, where an xorshift would stay"


def test_all_and_nothing_and_new_numbers_that_keep_the_counters(programs: list[Program]) -> None:
    programs.append(Program(Impairment(loss=1_000_000), 1))
    program = programs[0]
    assert all(program.fates(1000))
    program.set(Impairment())
    assert not any(program.fates(1000))
    assert program.counters() == (2000, 1000)


def test_what_only_loses() -> None:
    for one in (Impairment(loss=1), Impairment(rate=8000, loss=1), KINDS["gemodel"]):
        assert lossprogram.loses_only(one)
    for one in (Impairment(), Impairment(delay=1, loss=1), Impairment(duplicate=1), Impairment(rate=8000)):
        assert not lossprogram.loses_only(one)
