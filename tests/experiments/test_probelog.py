"""Probe logs: what is recorded, kept and summarised."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiatb.experiments.pattern import PatternChecker, pattern
from xiatb.experiments.probelog import ProbeLog, ProbeLogError, Window, first_answer_after, summarise
from xiatb.experiments.timeline import Mark, Span, answers_per_bin, draw

MS = 1_000_000


def steady_log(count: int, lost: range, rtt_ns: int = 2 * MS) -> ProbeLog:
    """A request each millisecond from t = 1 s on, answered after `rtt_ns` unless its number is in `lost`."""
    log = ProbeLog()
    for n in range(count):
        sent = 1000 * MS + n * MS
        seq = log.request(sent)
        if n not in lost:
            log.answer(seq, sent + rtt_ns)
    return log


def test_gap_is_longest_time_between_answers() -> None:
    log = steady_log(1000, range(300, 500))
    summary = summarise(log, Window(1000 * MS, 2000 * MS))
    assert summary.sent == 1000
    assert summary.lost == 200
    assert summary.gap_ms == pytest.approx(201.0)
    assert summary.outage_ms == pytest.approx(201.0)
    assert summary.gap_start_ns == 1000 * MS + 299 * MS + 2 * MS
    assert summary.rtt_median_ms == pytest.approx(2.0)


def test_late_answers_shorten_the_gap_but_not_the_outage() -> None:
    log = steady_log(1000, range(300, 500))
    log.answered[299] = 1400 * MS
    summary = summarise(log, Window(1000 * MS, 2000 * MS))
    assert summary.gap_ms == pytest.approx(102.0)
    assert summary.outage_ms == pytest.approx(201.0)


def test_no_answer_at_all_makes_the_window_the_gap() -> None:
    summary = summarise(steady_log(100, range(100)), Window(1000 * MS, 1100 * MS))
    assert (summary.lost, summary.gap_ms) == (100, 100.0)


def test_answers_outside_are_not_counted() -> None:
    log = steady_log(100, range(0))
    summary = summarise(log, Window(1050 * MS, 1060 * MS))
    assert summary.sent == 10


def test_duplicate_and_unknown_answers_are_refused() -> None:
    log = ProbeLog()
    seq = log.request(5)
    assert log.answer(seq, 9)
    assert not log.answer(seq, 10)
    assert not log.answer(7, 10)
    assert not log.answer(-1, 10)
    assert list(log.answered) == [9]


def test_first_answer_after() -> None:
    log = steady_log(10, range(5))
    assert first_answer_after(log, 1003 * MS) == 1007 * MS
    assert first_answer_after(log, 5000 * MS) is None


def test_saved_log_comes_back(tmp_path: Path) -> None:
    log = steady_log(50, range(3, 9))
    log.save(tmp_path / "p")
    back = ProbeLog.load(tmp_path / "p")
    assert (back.sent, back.answered) == (log.sent, log.answered)


@given(st.binary(max_size=200))
def test_damaged_log_is_refused(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(data)
        with pytest.raises(ProbeLogError):
            ProbeLog.load(path)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10_000), st.integers(0, 300), st.integers(0, 300))
def test_pattern_parts_join(seed: int, offset: int, first: int, second: int) -> None:
    whole = pattern(seed, offset, first + second)
    assert pattern(seed, offset, first) + pattern(seed, offset + first, second) == whole


@pytest.mark.parametrize("damage", ["lost", "repeated", "altered", "swapped"])
def test_checker_finds_damage(damage: str) -> None:
    good = pattern(3, 0, 4096)
    bad = {
        "lost": good[:1000] + good[1001:],
        "repeated": good[:1000] + good[999:],
        "altered": good[:1000] + bytes([good[1000] ^ 1]) + good[1001:],
        "swapped": good[:1000] + good[1032:1064] + good[1000:1032] + good[1064:],
    }[damage]
    checker = PatternChecker(3)
    assert not checker.feed(bad)
    assert checker.first_bad is not None
    assert 999 <= checker.first_bad <= 1001
    fine = PatternChecker(3)
    assert fine.feed(good[:7]) and fine.feed(good[7:])
    assert fine.received == 4096


def test_answers_per_bin_and_picture(tmp_path: Path) -> None:
    log = steady_log(400, range(100, 200))
    window = Window(1000 * MS, 1400 * MS)
    bins = answers_per_bin(log, window)
    assert len(bins) == 40
    assert bins[5] == 10
    assert bins[15] == 0
    marks = [Mark("request", 1010 * MS), Mark("STOP", 1100 * MS), Mark("RESUME", 1200 * MS)]
    span = Span("there", window, marks)
    assert span.instant("STOP") == 1100 * MS
    draw(log, [span, span], tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
