"""Sampling of a process's memory: what is in use, how fast it changes."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lines import next_line
from xiatb.migration import workload
from xiatb.migration.predictor import PAGE
from xiatb.migration.workload import GuestMemory, SamplingError


@settings(max_examples=100, deadline=None)
@given(st.floats(1e4, 1e8), st.floats(1e5, 1e9))
def test_two_points_tell_rate_and_working_set(rate: float, working_set: float) -> None:
    def x(t: float) -> float:
        return working_set * -math.expm1(-rate * t / working_set)

    found_rate, found_set = workload.solve(0.5, x(0.5), 2.0, x(2.0))
    for t in (0.2, 0.5, 1.0, 2.0):
        assert found_set * -math.expm1(-found_rate * t / found_set) == pytest.approx(x(t), rel=0.05)


@pytest.mark.parametrize(("x1", "x2"), [(0.0, 0.0), (0.0, 100.0), (100.0, 50.0), (100.0, 4000.0)])
def test_points_off_the_curve_give_something_sane(x1: float, x2: float) -> None:
    rate, working_set = workload.solve(0.5, x1, 2.0, x2)
    assert 0 <= rate < 1e6 and 0 <= working_set <= 40_000


def test_pages_in_use_and_pages_that_change() -> None:
    """1000 pages of 4000 in use; 100 of them change in each half second, of a hot set of 200."""
    rng = random.Random(4)
    content = [rng.randbytes(PAGE) if i < 1000 else bytes(PAGE) for i in range(4000)]
    offsets = workload.choose(4000 * PAGE, rng)

    def sample() -> list[int]:
        return workload.sums(lambda offset: content[offset // PAGE], offsets)

    def write(times: int) -> None:
        for _ in range(times):
            content[rng.randrange(200)] = rng.randbytes(PAGE)

    first = sample()
    write(100)
    short = sample()
    write(300)
    found = workload.estimate(4000 * PAGE, first, (0.5, short), (2.0, sample()))
    assert found.nonzero == 1000 * PAGE
    assert found.working_set == pytest.approx(200 * PAGE, rel=0.35)
    assert found.dirty_rate == pytest.approx(200 * PAGE, rel=0.35)


def test_a_choice_of_pages_is_sorted_and_has_no_page_twice() -> None:
    chosen = workload.choose(1 << 30, random.Random(1))
    assert len(set(chosen)) == workload.SAMPLES and chosen == sorted(chosen)
    assert workload.choose(3 * PAGE, random.Random(1)) == [0, PAGE, 2 * PAGE]


def test_memory_of_a_process_is_found_and_read() -> None:
    """In a process of its own: that of the tests may have a heap that is larger than the region."""
    size = (96 << 20) + 3 * PAGE
    words = (
        f"import mmap, sys; region = mmap.mmap(-1, {size}); region[{5 * PAGE}:{5 * PAGE + 5}] = b'hello'; "
        "print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert next_line(child.stdout) == ""
        with GuestMemory(child.pid, size) as memory:
            assert memory.page(5 * PAGE).startswith(b"hello")
            assert not any(memory.page(6 * PAGE))
        child.stdin.close()


def test_a_process_without_such_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="no mapping"):
        GuestMemory(os.getpid(), 1 << 50)
    with pytest.raises(SamplingError, match="can't be read"):
        GuestMemory(1, PAGE, tmp_path)


def test_measuring_waits_twice() -> None:
    class Still:
        ram = 16 * PAGE

        def page(self, offset: int) -> bytes:
            return bytes([offset // PAGE % 2]) * PAGE

    waits: list[float] = []
    now = [0.0]

    def wait(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    found = workload.measure(Still(), random.Random(1), wait, lambda: now[0])  # type: ignore[arg-type]
    assert (found.nonzero, found.dirty_rate) == (8 * PAGE, 0.0) and waits == [0.5, 1.5]
