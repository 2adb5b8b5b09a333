"""Live migration against the bars of its issue: what clients notice, time and downtime over XIA and over TCP,
bytes, encryption, streams that stay open, post-copy, predictions.

A row that can't be measured, because a lab or a migration failed, says why and counts as a bar that isn't
met.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from xiatb.errors import XiatbError
from xiatb.experiments.bench.figures import Bar, Figure
from xiatb.experiments.bench.migrationlab import Ground, Shape, ground
from xiatb.experiments.probelog import ProbeSummary

NAME = "migration"
LEAST_RUNS, QUICK_RUNS = 5, 1
TRIPS, QUICK_TRIPS = 20, 2
STREAMS = 8
CLIENT_RTT_MS = 25.0
MIB = 1 << 20
SETTINGS: tuple[tuple[str, int, int], ...] = (
    ("100mbit", 0, 0), ("100mbit", 0, MIB), ("50mbit", 0, 0), ("200mbit", 0, 2 * MIB), ("100mbit", 6, 0),
    ("150mbit", 0, MIB // 2), ("75mbit", 0, 0), ("50mbit", 0, MIB // 2), ("100mbit", 3, 0), ("200mbit", 0, 0),
)  # fmt: skip
"""Rate of the link between the ADs, cap in MiB/s (0: none), bytes a second that the guest writes."""
QUICK_SETTINGS = 2
Rows = Callable[[Ground, int, bool], list[Figure]]


def _figure(name: str, bar: Bar | None = None, unit: str = "ms") -> Figure:
    return Figure(NAME, name, bar or Bar(), unit=unit)


def measure(runs: int, seconds: float, which: Sequence[str] = ()) -> list[Figure]:
    """The rows of these parts, of all if there are none: at least five runs of each, one with `seconds` below
    1 (--quick). Parts that need the same lab, one after the other, share it."""
    quick = seconds < 1.0
    runs = QUICK_RUNS if quick else max(runs, LEAST_RUNS)
    figures: list[Figure] = []
    for shape, names in itertools.groupby(which or PARTS, key=lambda name: PARTS[name][0]):
        parts = [PARTS[name][1:] for name in names]
        try:
            with ground(shape) as place:
                for row_names, rows in parts:
                    figures += _rows(place, row_names, rows, runs, quick)
        except XiatbError as error:
            done = {figure.name for figure in figures}
            for row_names, _ in parts:
                figures += [_missing(name, bar, error) for name, bar in row_names if name not in done]
    return figures


def _rows(place: Ground, names: Names, rows: Rows, runs: int, quick: bool) -> list[Figure]:
    sys.stderr.write(f"bench: migration: {names[0][0]}\n")
    try:
        return rows(place, runs, quick)
    except XiatbError as error:
        return [_missing(name, bar, error) for name, bar in names]


def _missing(name: str, bar: Bar, error: XiatbError) -> Figure:
    figure = _figure(name, bar)
    figure.note = f"not measured: {error.message}"
    return figure


Names = tuple[tuple[str, Bar], ...]
INTER: Names = (
    ("inter-AD, memory and disk: client gap", Bar(most=250.0)),
    ("inter-AD: gap less downtime and half the client's RTT", Bar(most=40.0)),
    ("inter-AD: downtime", Bar()),
)
INTRA: Names = (("intra-AD, memory only: client gap", Bar(most=150.0)), ("intra-AD: downtime", Bar()))
POSTCOPY: Names = (("post-copy at 25 ms RTT: STOP to RESUME", Bar(most=100.0)),)
WIRE: Names = (
    ("bytes on the wire over bytes of QEMU, MTU 9000", Bar(most=1.05)),
    ("total time encrypted over in the clear", Bar(most=1.03)),
)
KEPT: Names = (("streams kept open through all migrations, % of 8", Bar(least=100.0)),)
PREDICTED: Names = (
    ("prediction error of total time, median over settings", Bar(most=15.0)),
    ("prediction error of downtime, median over settings", Bar()),
    ("processor time of counting and digests, source", Bar()),
    ("processor time of counting and digests, destination", Bar()),
)


def against_tcp(mtu: int) -> Names:
    """Rows of the comparison with libvirt's own migration over TCP."""
    return (
        (f"total time over XIA, over TCP, MTU {mtu}", Bar(most=1.15 if mtu == 1500 else 1.05)),
        (f"downtime over XIA, over TCP, MTU {mtu}", Bar(most=1.2)),
    )


def _made(names: Names, *units: str) -> list[Figure]:
    return [_figure(name, bar, unit) for (name, bar), unit in zip(names, units, strict=True)]


def client_gap(place: Ground, runs: int, quick: bool) -> list[Figure]:
    """The NSDI'12 scenario made harder."""
    gap, rest, downtime = _made(INTER, "ms", "ms", "ms")
    for result, seen in place.probed(runs, place.migrate):
        gap.add(seen.gap_ms)
        rest.add(_rest(result, seen))
        downtime.add(result["downtime_ms"])
    return [gap, rest, downtime]


def _rest(result: dict[str, Any], seen: ProbeSummary) -> float:
    return seen.gap_ms - float(result["downtime_ms"]) - CLIENT_RTT_MS / 2


def client_gap_inside(place: Ground, runs: int, quick: bool) -> list[Figure]:
    """The original's scenario: memory alone, inside one AD."""
    gap, downtime = _made(INTRA, "ms", "ms")
    for result, seen in place.probed(runs, lambda: place.migrate(storage=False)):
        gap.add(seen.gap_ms)
        downtime.add(result["downtime_ms"])
    return [gap, downtime]


def postcopy(place: Ground, runs: int, quick: bool) -> list[Figure]:
    """Post-copy over a path of 25 ms round trip."""
    place.link("hv2", "r1", delay="12.5ms", rate="100mbit")
    (stopped,) = _made(POSTCOPY, "ms")
    for _ in range(runs):
        stopped.add(float(place.migrate(storage=False, mode="postcopy")["downtime_ms"]))
    return [stopped]


def tcp(mtu: int) -> Rows:
    """XIA and TCP by turns on the same links."""

    def rows(place: Ground, runs: int, quick: bool) -> list[Figure]:
        total, downtime = _made(against_tcp(mtu), "s", "ms")
        for _ in range(runs):
            ours = place.migrate(transport="xia")
            theirs = place.migrate(transport="tcp")
            total.add(ours["total_ms"] / 1000, theirs["total_ms"] / 1000)
            downtime.add(ours["downtime_ms"], theirs["downtime_ms"])
        return [total, downtime]

    return rows


def wire_and_encryption(place: Ground, runs: int, quick: bool) -> list[Figure]:
    """Bytes on the link, and with and without TLS by turns."""
    wire, cost = _made(WIRE, "MB", "s")
    for _ in range(runs):
        before = place.on_wire()
        sealed = place.migrate()
        wire.add((place.on_wire() - before) / 1e6, sum(sealed["bytes_qemu"].values()) / 1e6)
        clear = place.migrate(encrypt=False)
        cost.add(sealed["total_ms"] / 1000, clear["total_ms"] / 1000)
    return [wire, cost]


def streams_kept(place: Ground, runs: int, quick: bool) -> list[Figure]:
    """Eight client connections, each with bytes going both ways all the time, through migrations to and fro;
    every byte must come back once and in order."""
    (kept,) = _made(KEPT, "%")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(place.probing(2.0, 20_000)) for _ in range(STREAMS)]
        for _ in range(QUICK_TRIPS if quick else TRIPS):
            place.migrate()
        whole = sum(bool(client.finish()[0]["stream_intact"]) for client in clients)
    kept.add(100.0 * whole / STREAMS)
    return [kept]


def predictions(place: Ground, runs: int, quick: bool) -> list[Figure]:
    """`--plan` just before each migration, in settings that differ in link, cap and guest."""
    total, downtime, here, there = _made(PREDICTED, "%", "%", "us a page", "us a page")
    for rate, cap, writes in SETTINGS[: QUICK_SETTINGS if quick else None]:
        place.link("r1", "r2", rate=rate, delay="5ms")
        with _writing(place, writes):
            told = place.plan_of(bandwidth=cap)["predicted"]
            result = place.migrate(bandwidth=cap)
        total.add(_off(told["total_s"], result["total_ms"]))
        downtime.add(_off(told["downtime_s"], result["downtime_ms"]))
        cost = result["pages"].get("cost_us_per_page", {})
        here.add(cost.get("source", float("nan")))
        there.add(cost.get("destination", float("nan")))
    place.link("r1", "r2", rate="100mbit", delay="5ms")
    return [total, downtime, here, there]


def _off(seconds: float, milliseconds: float) -> float:
    return 100 * abs(1000 * seconds - milliseconds) / milliseconds


@contextlib.contextmanager
def _writing(place: Ground, rate: int) -> Iterator[None]:
    if rate:
        place.writer(rate)
    try:
        yield
    finally:
        if rate:
            place.writer(0)


_INTER, _INSIDE = Shape(), Shape(intra=True, shared=True)
_WRITES = Shape(memory="160M")
"""A guest of 128 MiB has too little memory for the writer beside the other services."""
PARTS: dict[str, tuple[Shape, Names, Rows]] = {
    "gap": (_INTER, INTER, client_gap),
    "wire": (_INTER, WIRE, wire_and_encryption),
    "predicted": (_WRITES, PREDICTED, predictions),
    "kept": (_INTER, KEPT, streams_kept),
    "inside": (_INSIDE, INTRA, client_gap_inside),
    "postcopy": (_INSIDE, POSTCOPY, postcopy),
    "tcp1500": (Shape(mtu=1500, baseline=True), against_tcp(1500), tcp(1500)),
    "tcp9000": (Shape(mtu=9000, baseline=True), against_tcp(9000), tcp(9000)),
}
"""By name: the lab, the rows with their bars, what measures them."""
BY_PART: dict[str, Callable[[int, float], list[Figure]]] = {
    f"{NAME}:{part}": functools.partial(measure, which=(part,)) for part in PARTS
}
"""The same as benchmarks of their own."""
