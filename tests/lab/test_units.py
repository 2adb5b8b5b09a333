"""Quantities: what is read, what is refused and with which advice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiatb.lab import units


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.duration, "5ms", 5 * 10**6),
        (units.duration, "0.25 ms", 250_000),
        (units.duration, 0, 0),
        (units.duration, "10s", 10**10),
        (units.rate, "100mbit", 10**8),
        (units.rate, "2.5Gbit", 2_500_000_000),
        (units.rate, "100Mbit/s", 10**8),
        (units.share, "0.1%", 1000),
        (units.share, "100%", 10**6),
        (units.share, 0, 0),
        (units.memory, "192M", 192 * 2**20),
        (units.memory, "1GiB", 2**30),
        (units.byte_rate, "10M/s", 10 * 2**20),
        (units.queue, "256k", 262144),
    ],
)
def test_reads(parse: object, text: object, value: int) -> None:
    assert parse(text) == value  # type: ignore[operator]


@pytest.mark.parametrize(
    ("parse", "text", "advice"),
    [
        (units.duration, "10sm", "did you mean '10ms'?"),
        (units.duration, 5, "did you mean '5ms'?"),
        (units.duration, "-1ms", "out of range: 0 to 10s"),
        (units.duration, "11s", "out of range: 0 to 10s"),
        (units.duration, True, "not a duration"),
        (units.duration, None, "not a duration"),
        (units.duration, "nan", "not a duration"),
        (units.rate, "100mbps", "did you mean '100mbit'?"),
        (units.rate, "1bit", "out of range"),
        (units.rate, "1e99gbit", "not a rate"),
        (units.share, "101%", "0% to 100%"),
        (units.share, 0.5, "did you mean '0.5%'?"),
        (units.memory, "1M", "64M to 64G"),
        (units.memory, "100000001b", "whole number of MiB"),
    ],
)
def test_refuses(parse: object, text: object, advice: str) -> None:
    with pytest.raises(ValueError, match=advice.replace("?", r"\?")):
        parse(text)  # type: ignore[operator]


@given(st.integers(0, units.MAX_DELAY))
def test_durations_survive_being_shown(value: int) -> None:
    assert units.duration(units.show_duration(value)) == value


@given(st.integers(units.MIN_RATE, units.MAX_RATE))
def test_rates_survive_being_shown(value: int) -> None:
    assert units.rate(units.show_rate(value)) == value


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (units.duration, units.rate, units.share, units.memory, units.queue):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert len(str(error)) < 200
