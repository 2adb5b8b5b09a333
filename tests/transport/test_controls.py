"""What the congestion controls achieve: start time, fairness, loss, long fat pipes; kept as a snapshot.

To renew it after a deliberate change: XIATB_UPDATE_SNAPSHOTS=1 pytest tests/transport/test_controls.py
"""

from __future__ import annotations

import os
import random
from pathlib import Path as File

import pytest

from tests.transport.bottleneck import Bottleneck, jain
from tests.transport.transfer import Transfer
from xiatb.transport.bbr import BBR, Mode
from xiatb.transport.delivery import Sample
from xiatb.transport.hystart import HyStart
from xiatb.transport.pacing import Pacer

SNAPSHOT = File(__file__).parent / "snapshots" / "controls.txt"

FAIR = [
    (["cubic", "cubic"], 60, 0.1),
    (["cubic", "cubic"], 200, 0.1),
    (["cubic", "cubic"], 200, 1.0),
    (["bbr", "bbr"], 60, 0.1),
    (["bbr", "bbr"], 200, 0.1),
    (["bbr", "bbr"], 200, 1.0),
    (["cubic", "bbr"], 200, 0.1),
]


def _start(control: str, queue: int) -> str:
    config = {"congestion": control, "send_buffer": 4 << 20}
    transfer = Transfer(10_000_000, seed=3, config=config, rate=100e6, delay=0.025, queue=queue).run()
    seconds = transfer.finished - transfer.started
    # 0.93 s is what the line takes for the bytes and their headers, 0.2 s what doubling takes.
    assert seconds < 1.6, (control, queue, seconds)
    resent = transfer.stream.stats()["retransmitted"]
    path = f"10 MB, 100 Mbit/s, 50 ms, queue {queue:4d}"
    return f"start    {control:5} {path} | {seconds:5.3f} s, {resent} lost"


def _fair(controls: list[str], queue: int, stagger: float) -> str:
    shares = (link := Bottleneck(controls, queue=queue, stagger=stagger)).measure(20.0)
    index = jain(shares)
    assert index >= 0.6, (controls, queue, stagger, shares)
    assert sum(shares) > 0.92 * 86.4
    resent = sum(stream.stats()["retransmitted"] for stream in link.streams)
    return (
        f"fairness {'+'.join(controls):11} 100 Mbit/s, 25 ms, queue {queue:4d}, {stagger:3.1f} s apart | "
        f"Jain {index:.3f}, {sum(shares):5.1f} Mbit/s, {resent} resent"
    )


def _lossy(control: str, loss: float, least: float) -> str:
    rate = Bottleneck([control], queue=1000, loss=loss, stagger=1.0).measure(9.0)[0]
    assert rate >= least
    return f"loss     {control:5} 100 Mbit/s, 25 ms, {loss:4.0%} | {rate:5.1f} Mbit/s"


def _long(control: str) -> str:
    link = Bottleneck(
        [control], mtu=9000, buffer=40 << 20, rate=1e9, delay=0.05, queue=1400, stagger=2.5
    )  # fmt: skip
    rate = link.measure(1.0)[0]
    assert rate > 930
    return f"long     {control:5} 1 Gbit/s, 100 ms, MTU 9000, buffers of 40 MiB | {rate:5.1f} Mbit/s"


def test_the_table_of_controls() -> None:
    rows = [_start(control, queue) for control in ("cubic", "reno", "bbr") for queue in (60, 200, 1000)]
    for controls, queue, stagger in FAIR:
        rows.append(_fair(controls, queue, stagger))
    rows += [_lossy("cubic", 0.01, 4.0), _lossy("bbr", 0.0, 82.0), _lossy("bbr", 0.01, 75.0)]
    rows += [_long("cubic"), _long("bbr")]
    text = "\n".join(rows) + "\n"
    if os.environ.get("XIATB_UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text(), text


def test_pacing_releases_bursts_of_a_millisecond_and_keeps_a_late_timer_s_credit() -> None:
    pacer = Pacer()
    assert pacer.refill(1.0, 0.0, 1000) == float("inf")
    pacer.credit = 0.0
    assert pacer.refill(1.001, 10e6, 1000) == pytest.approx(10_000)
    pacer.spend(10_000)
    assert pacer.due(1.001) == pytest.approx(1.002)
    assert pacer.refill(1.006, 10e6, 1000) == pytest.approx(50_000)
    assert pacer.refill(2.0, 10e6, 1000) == pytest.approx(50_000)
    pacer.spend(50_000)
    assert pacer.refill(3.0, 10e6, 1000) == pytest.approx(30_000), "idle time is not saved up"


def test_hystart_ends_slow_start_after_five_rounds_of_longer_round_trips() -> None:
    hystart = HyStart()
    seen = []
    una = 0
    for number in range(12):
        rtt = 0.05 if number < 4 else 0.06
        end = una + 100
        seen += [hystart.on_ack(rtt, at, end) for at in range(una, end, 10)]
        una = end
    assert seen.index(4) // 10 == 4
    assert seen.index(0) // 10 == 9


def test_hystart_goes_back_to_slow_start_when_the_delay_was_a_spike() -> None:
    hystart = HyStart()
    una, seen = 0, []
    for rtt in (0.05, 0.05, 0.06, 0.05, 0.05):
        end = una + 100
        seen += [hystart.on_ack(rtt, at, end) for at in range(una, end, 10)]
        una = end
    assert 4 in seen
    assert seen[-1] == 1


def test_bbr_finds_the_pipe_full_and_drains() -> None:
    bbr = BBR(1000, 10, random.Random(1))
    total, now = 0, 0.0
    for _ in range(40):
        now += 0.01
        sample = Sample(now, 10_000, total + 10_000, total, 1e6, False, 0, 0, 20_000, 9_000, 0.01)
        total += 10_000
        bbr.on_sample(sample)
    assert bbr.mode is not Mode.STARTUP
    assert bbr.bw == pytest.approx(1e6)
    assert bbr.min_rtt == pytest.approx(0.01)
    assert bbr.rate <= 2e6
