"""Whole transfers over a grid of loss, delay, reordering and duplication; the results are a snapshot.

To renew the snapshot after a deliberate change: XIATB_UPDATE_SNAPSHOTS=1 pytest tests/transport/test_grid.py
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path as File

import pytest

from tests.transport.transfer import Transfer

SNAPSHOT = File(__file__).parent / "snapshots" / "grid.txt"
SIZE = 3_000_000
RATE = 100e6
GRID = list(
    itertools.product(
        (("cubic", 1500), ("cubic", 9000), ("reno", 1500), ("bbr", 1500), ("bbr", 9000)),
        (0.0, 0.01, 0.05),
        (0.001, 0.025),
        ((0.0, 0.0), (0.05, 0.01)),
    )
)
HEAD = (
    "control  mtu   loss  delay reorder dup   | Mbit/s  resent timeouts recoveries undone probes duplicates"
)


def _label(control: str, mtu: int, loss: float, delay: float, reorder: float, duplicate: float) -> str:
    return f"{control:7} {mtu:5d} {loss:5.2f} {delay * 1e3:4.0f}ms {reorder:6.2f} {duplicate:5.2f}"


def _floor(loss: float, delay: float, mtu: int) -> float:
    """Mbit/s that any sane sender reaches: half of Mathis' formula, or of the line with slow start."""
    rtt = 2 * delay + 0.002
    line = SIZE * 8 / (SIZE * 8 / (RATE * 0.8) + 12 * rtt) / 1e6 * 0.6
    if not loss:
        return line
    return min(line, 0.5 * (mtu - 204) * 8 / (rtt * loss**0.5) / 1e6 * (0.8 if loss < 0.03 else 0.6))


def _run(
    control: str, mtu: int, loss: float, delay: float, reorder: float, duplicate: float
) -> tuple[str, float]:
    transfer = Transfer(
        SIZE, seed=11, config={"congestion": control, "mtu": mtu}, rate=RATE, delay=delay, loss=loss,
        reorder=reorder, extra=min(0.004, delay), duplicate=duplicate, queue=200,
    ).run()  # fmt: skip
    stats = transfer.stream.stats()
    assert transfer.peer is not None
    row = (
        f"{_label(control, mtu, loss, delay, reorder, duplicate)} | {transfer.goodput / 1e6:6.2f} "
        f"{stats['retransmitted']:7d} {stats['timeouts']:8d} "
        f"{stats['fast_recoveries']:10d} {stats['undone']:6d} "
        f"{stats['tail_probes']:6d} {transfer.peer.stats()['duplicates']:10d}"
    )
    return row, transfer.goodput / 1e6


def test_grid_is_exact_complete_and_sane() -> None:
    rows = [HEAD]
    slow = []
    for (control, mtu), loss, delay, (reorder, duplicate) in GRID:
        row, goodput = _run(control, mtu, loss, delay, reorder, duplicate)
        rows.append(row)
        if goodput < _floor(loss, delay, mtu) * (0.5 if reorder else 1.0):
            slow.append(f"{row}  < {_floor(loss, delay, mtu):.2f}")
    assert not slow, "\n" + "\n".join(slow)
    text = "\n".join(rows) + "\n"
    if os.environ.get("XIATB_UPDATE_SNAPSHOTS"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text(), text


@pytest.mark.parametrize("seed", range(8))
def test_heavy_abuse_stays_exact(seed: int) -> None:
    Transfer(
        300_000, seed=seed, rate=50e6, delay=0.005, loss=0.2, reorder=0.3, extra=0.05, duplicate=0.1
    ).run()
