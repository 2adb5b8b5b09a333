"""Quantities in a topology file: text with a unit to integers, with the allowed range in every refusal.

Durations become nanoseconds, rates bit/s, sizes bytes, shares parts per million: integers, so that plans
compare. Rate units follow tc(8): `mbit` is 10^6 bit/s. `mbps` is refused: tc means bytes by it, most people
bits. `M` and `MiB` are 2^20 bytes, `MB` is 10^6.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*([A-Za-z%/µ]*)\s*$")

DURATIONS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9}
RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
SIZES = {
    "b": 1, "k": 2**10, "kb": 10**3, "kib": 2**10, "m": 2**20, "mb": 10**6, "mib": 2**20,
    "g": 2**30, "gb": 10**9, "gib": 2**30,
}  # fmt: skip

MAX_DELAY = 10 * 10**9
MIN_RATE, MAX_RATE = 8_000, 100 * 10**9


_HUGE = 1e30
"""out of every range; digits without end are more, and infinite as a float"""


def duration(value: object) -> int:
    """ "5ms" -> nanoseconds, 0 to 10 s. A bare 0 is allowed. Raises ValueError with the reason."""
    number = _quantity(value, DURATIONS, "a duration", "10ms", bare_zero=True)
    return _within(number, 0, MAX_DELAY, value, "0 to 10s")


def any_duration(value: object) -> int:
    """Like `duration`, up to 10 hours: for deadlines on the command line."""
    return _within(
        _quantity(value, DURATIONS, "a duration", "30s", bare_zero=True), 0, 36000 * 10**9, value, "0 to 10 h"
    )


def rate(value: object) -> int:
    """ "100mbit" -> bit/s, 8kbit to 100gbit. Raises ValueError with the reason."""
    return _within(
        _quantity(value, RATES, "a rate", "100mbit"), MIN_RATE, MAX_RATE, value, "8kbit to 100gbit"
    )


def share(value: object) -> int:
    """ "0.1%" -> parts per million, 0 to 100 %. A bare 0 is allowed; other bare numbers are refused as
    ambiguous."""
    number = _quantity(value, {"%": 10_000, "ppm": 1}, "a percentage", "0.1%", bare_zero=True)
    return _within(number, 0, 1_000_000, value, "0% to 100%")


def burst(value: object) -> int:
    """ "5" -> mean number of frames lost in a row, 0 to 10000. Raises ValueError with the reason."""
    text = str(value).strip()
    if isinstance(value, bool) or not text.isdigit():
        raise ValueError(f"{_show(value)} is not a number of frames (such as 5): 0 to 10000")
    return _within(int(text), 0, 10_000, value, "0 to 10000")


def gemodel(value: object) -> tuple[int, int, int, int]:
    """ "1% 20% 100% 0%" -> the four shares p, r, 1-h, 1-k in parts per million; the last three may be left
    out, with tc-netem(8)'s defaults 1-p, 100% and 0%. Raises ValueError with the reason."""
    words = [str(word) for word in value] if isinstance(value, list | tuple) else str(value).split()
    if not 1 <= len(words) <= 4:
        raise ValueError(f"{_show(value)} is not 'P [R [1-H [1-K]]]', one to four shares of 0% to 100%")
    shares = [share(word) for word in words]
    defaults = (0, 1_000_000 - shares[0], 1_000_000, 0)
    p, r, bad, good = [*shares, *defaults[len(shares) :]]
    return p, r, bad, good


def memory(value: object) -> int:
    """ "192M" -> bytes, 64M to 64G, whole MiB."""
    number = _within(_quantity(value, SIZES, "a size", "192M"), 64 * 2**20, 64 * 2**30, value, "64M to 64G")
    if number % 2**20:
        raise ValueError(f"{_show(value)} is not a whole number of MiB")
    return number


def byte_rate(value: object) -> int:
    """ "10M" or "10M/s" -> bytes per second, 0 to 10 GiB/s: the rates of the writer service."""
    text = value[:-2] if isinstance(value, str) and value.endswith("/s") else value
    return _within(
        _quantity(text, SIZES, "a size per second", "10M", bare_zero=True), 0, 10 * 2**30, value, "0 to 10G/s"
    )


def queue(value: object) -> int:
    """ "1M" -> bytes of a link's queue, 3 kB to 1 GiB."""
    return _within(_quantity(value, SIZES, "a size", "256k"), 3000, 2**30, value, "3kB to 1G")


def show_duration(nanoseconds: int) -> str:
    """Short text that `duration` reads back as the same number."""
    for unit in ("s", "ms", "us"):
        text = f"{nanoseconds / DURATIONS[unit]:g}{unit}"
        if nanoseconds >= DURATIONS[unit] and "e" not in text and any_duration(text) == nanoseconds:
            return text
    return f"{nanoseconds}ns"


def show_rate(bits: int) -> str:
    """Shortest text that `rate` reads back as the same number."""
    for unit in ("gbit", "mbit", "kbit"):
        if bits % RATES[unit] == 0:
            return f"{bits // RATES[unit]}{unit}"
    return f"{bits}bit"


def show_share(ppm: int) -> str:
    """Parts per million as a percentage."""
    return f"{ppm / 10_000:g}%"


def show_gemodel(shares: tuple[int, int, int, int]) -> str:
    """Text that `gemodel` reads back as the same shares."""
    return " ".join(map(show_share, shares))


def show_size(number: int) -> str:
    """Shortest text that `queue` reads back as the same number."""
    for unit in ("G", "M", "k"):
        if number and number % SIZES[unit.lower()] == 0:
            return f"{number // SIZES[unit.lower()]}{unit}"
    return f"{number}B"


def _quantity(
    value: object, units: dict[str, int], kind: str, example: str, *, bare_zero: bool = False
) -> int:
    match = (
        _NUMBER.match(str(value))
        if isinstance(value, str | int | float) and not isinstance(value, bool)
        else None
    )
    if match is None:
        raise ValueError(f"{_show(value)} is not {kind} (such as {example})")
    number, unit = float(match[1]), match[2].lower()
    if not unit:
        if bare_zero and number == 0:
            return 0
        raise ValueError(f"{_show(value)} has no unit (did you mean {_guess(match[1], units)!r}?)")
    unit = unit.removesuffix("/s")
    if unit not in units:
        raise ValueError(
            f"{_show(value)} is not {kind} (did you mean {_nearest(match[1], unit, units, example)!r}?)"
        )
    return round(min(number * units[unit], _HUGE))


def _guess(number: str, units: dict[str, int]) -> str:
    return number + next(unit for unit in ("ms", "mbit", "%", "m") if unit in units)


def _nearest(number: str, unit: str, units: dict[str, int], example: str) -> str:
    anagrams = [name for name in units if sorted(name) == sorted(unit)]
    same_start = sorted((name for name in units if name[0] == unit[0]), key=len, reverse=True)
    near = anagrams or same_start
    return number + near[0] if near else example


def _within(number: int, low: int, high: int, value: object, words: str) -> int:
    if not low <= number <= high:
        raise ValueError(f"{_show(value)} is out of range: {words}")
    return number


def _show(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
