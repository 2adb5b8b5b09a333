"""Figures of migrations over XIA and over TCP/IP, side by side: one `Sample` a migration, medians of many.

Definitions: `total_ms`, `downtime_ms`, `client_gap_ms` as in `result`; `client_answered`: a request sent
after RESUME was answered, else the gap has no end; `bytes_qemu` what QEMU wrote (memory and disk);
`bytes_on_wire` all frames in and out of the source hypervisor from request to result, the client's too;
`goodput_mbit` is bytes_qemu over total_ms; `session_kept`: the client's stream went on, every byte once
and in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

TRANSPORTS = ("xia", "tcp")
FIGURES = ("total_ms", "downtime_ms", "client_gap_ms", "bytes_qemu", "bytes_on_wire", "goodput_mbit")
_ROWS = (
    ("total ms", "total_ms"), ("downtime ms", "downtime_ms"), ("client gap ms", "client_gap_ms"),
    ("from QEMU MB", "bytes_qemu"), ("on wire MB", "bytes_on_wire"), ("goodput Mbit/s", "goodput_mbit"),
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One migration over one transport; see the module's definitions."""

    transport: str
    source: str
    destination: str
    same_ad: bool
    total_ms: float
    downtime_ms: float
    client_gap_ms: float
    client_answered: bool
    probes_sent: int
    probes_lost: int
    session_kept: bool
    session_error: str
    same_boot: bool
    bytes_qemu: int
    bytes_on_wire: int
    passes: int

    @property
    def goodput_mbit(self) -> float:
        """Megabits a second of what QEMU wrote, over the whole migration."""
        return self.bytes_qemu * 8 / 1e3 / self.total_ms

    @property
    def leg(self) -> tuple[str, str]:
        """Where from and to."""
        return self.source, self.destination


def legs_of(samples: Iterable[Sample]) -> list[tuple[str, str]]:
    """The legs, in the order in which they first came."""
    return list(dict.fromkeys(sample.leg for sample in samples))


def compare(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """For each leg: medians over each transport, XIA's over TCP's, sessions kept. Plain data."""
    return [_leg([one for one in samples if one.leg == leg]) for leg in legs_of(samples)]


def _leg(samples: Sequence[Sample]) -> dict[str, Any]:
    sides = {name: [one for one in samples if one.transport == name] for name in TRANSPORTS}
    told: dict[str, Any] = {
        "from": samples[0].source, "to": samples[0].destination, "same_ad": samples[0].same_ad,
    }  # fmt: skip
    for name, ones in sides.items():
        told[name] = _side(ones) if ones else None
    if all(sides.values()):
        told["ratio"] = {
            key: round(told["xia"][key] / told["tcp"][key], 3) for key in FIGURES if told["tcp"][key]
        }
    return told


def _side(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "runs": len(samples),
        **{key: round(median(getattr(one, key) for one in samples), 3) for key in FIGURES},
        "client_answered": sum(one.client_answered for one in samples),
        "probes_lost": median(one.probes_lost for one in samples),
        "sessions_kept": sum(one.session_kept for one in samples),
    }


def failures(samples: Iterable[Sample]) -> list[str]:
    """What must hold and does not, in words: the guest lives on, and within an AD or over XIA so do its
    connections. A connection that breaks between ADs over IP is a finding, not a failure."""
    problems = []
    for one in samples:
        where = f"{one.source} -> {one.destination} over {one.transport}"
        if not one.same_boot:
            problems.append(f"{where}: the guest booted again")
        if (one.same_ad or one.transport == "xia") and not one.session_kept:
            reason = one.session_error or "bytes are missing"
            problems.append(f"{where}: the client's connection broke ({reason})")
    return problems


def table(leg: dict[str, Any]) -> list[list[object]]:
    """Rows of one leg of `compare`: figure, XIA, TCP, ratio."""
    rows: list[list[object]] = []
    for label, key in _ROWS:
        scale = 1e6 if label.endswith("MB") else 1.0
        cells = [_cell(leg.get(name), key, scale) for name in TRANSPORTS]
        ratio = (leg.get("ratio") or {}).get(key)
        endless = key == "client_gap_ms" and any("no answer" in cell for cell in cells)
        rows.append([label, *cells, "" if ratio is None or endless else f"{ratio:.2f}"])
    rows.append(["probes lost", *[_plain(leg.get(name), "probes_lost") for name in TRANSPORTS], ""])
    rows.append(["connections kept", *[_kept(leg.get(name)) for name in TRANSPORTS], ""])
    return rows


def _cell(side: dict[str, Any] | None, key: str, scale: float) -> str:
    if side is None:
        return "-"
    if key == "client_gap_ms" and side["client_answered"] < side["runs"]:
        return "no answer any more"
    return f"{side[key] / scale:.{0 if key.endswith('ms') else 1}f}"


def _plain(side: dict[str, Any] | None, key: str) -> str:
    return "-" if side is None else f"{side[key]:g}"


def _kept(side: dict[str, Any] | None) -> str:
    return "-" if side is None else f"{side['sessions_kept']} of {side['runs']}"


def to_json(sample: Sample) -> dict[str, Any]:
    """A sample as plain data."""
    return {**asdict(sample), "goodput_mbit": round(sample.goodput_mbit, 3)}
