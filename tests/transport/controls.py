"""What the congestion controls achieve on the simulated path, as rows of a table.

`python -m tests.transport.controls` prints the full table (100 Mbit/s throughout, several minutes);
`test_controls.py` keeps a short one as a snapshot, with slower links where that changes nothing but the time.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator

from tests.transport.bottleneck import Bottleneck, jain
from tests.transport.transfer import Transfer

ROOM = 0.864
"""Part of a link that headers leave to payload at MTU 1500 (without Ethernet)."""


def start(control: str, queue: int, size: int = 10_000_000) -> str:
    """A transfer over 100 Mbit/s and 50 ms from an idle start."""
    config = {"congestion": control, "send_buffer": 4 << 20}
    transfer = Transfer(size, seed=3, config=config, rate=100e6, delay=0.025, queue=queue).run()
    seconds = transfer.finished - transfer.started
    # What the line takes for the bytes and their headers, 0.3 s for the handshake and doubling, and play.
    assert seconds < size * 8 / (100e6 * ROOM) + 0.8, (control, queue, seconds)
    resent = transfer.stream.stats()["retransmitted"]
    path = f"{size / 1e6:g} MB, 100 Mbit/s, 50 ms, queue {queue:4d}"
    return f"start    {control:5} {path} | {seconds:5.3f} s, {resent} resent"


def fair(controls: list[str], queue: int, stagger: float, mbit: float = 100, seconds: float = 20.0) -> str:
    """Two streams behind one bottleneck of 25 ms."""
    link = Bottleneck(controls, queue=queue, stagger=stagger, rate=mbit * 1e6)
    shares = link.measure(seconds)
    index = jain(shares)
    assert index >= 0.6, (controls, queue, stagger, shares)
    assert sum(shares) > 0.9 * mbit * ROOM
    resent = sum(stream.stats()["retransmitted"] for stream in link.streams)
    return (
        f"fairness {'+'.join(controls):11} {mbit:g} Mbit/s, 25 ms, queue {queue:4d}, "
        f"{stagger:3.1f} s apart | Jain {index:.3f}, {sum(shares):5.1f} Mbit/s, {resent} resent"
    )


def lossy(control: str, loss: float, least: float, seeds: int, seconds: float) -> str:
    """The median of streams over 100 Mbit/s and 25 ms that lose packets and acknowledgements at random."""
    rates = []
    for seed in range(seeds):
        link = Bottleneck([control], queue=1000, loss=loss, stagger=0.0)
        link.sim.path.loss = loss
        link.sim.rng.seed(seed)
        link.measure(1.0)
        rates.append(link.measure(seconds)[0])
    rate = statistics.median(rates)
    assert rate >= least, (control, rates)
    return f"loss     {control:5} 100 Mbit/s, 25 ms, {loss:4.0%}, median of {seeds} | {rate:5.1f} Mbit/s"


def long(control: str) -> str:
    """A long fat pipe."""
    link = Bottleneck(
        [control], mtu=9000, buffer=40 << 20, rate=1e9, delay=0.05, queue=1400, stagger=2.5
    )  # fmt: skip
    rate = link.measure(1.0)[0]
    assert rate > 930
    return f"long     {control:5} 1 Gbit/s, 100 ms, MTU 9000, buffers of 40 MiB | {rate:5.1f} Mbit/s"


Row = Callable[[], str]
SHORT: list[Row] = [
    *(lambda c=c: start(c, 200, 4_000_000) for c in ("cubic", "reno", "bbr")),
    *(lambda c=c: fair([c, c], 50, 0.1, 20, 15.0) for c in ("cubic", "bbr")),
    lambda: fair(["cubic", "bbr"], 50, 0.1, 20, 10.0),
    lambda: lossy("cubic", 0.01, 4.5, 5, 6.0),
    lambda: lossy("bbr", 0.0, 82.0, 1, 1.5),
    lambda: lossy("bbr", 0.01, 78.0, 1, 2.5),
    lambda: long("bbr"),
]


def full() -> Iterator[str]:
    """All rows, as they come."""
    for control in ("cubic", "reno", "bbr"):
        for queue in (60, 200, 1000):
            yield start(control, queue)
    for pair in (["cubic", "cubic"], ["bbr", "bbr"]):
        for queue, stagger in ((60, 0.1), (200, 0.1), (200, 1.0)):
            yield fair(pair, queue, stagger)
    yield fair(["cubic", "bbr"], 200, 0.1)
    for control, loss, least in (("cubic", 0.01, 4.0), ("bbr", 0.0, 82.0), ("bbr", 0.01, 75.0)):
        yield lossy(control, loss, least, 5, 8.0)
    yield from map(long, ("cubic", "bbr"))


if __name__ == "__main__":
    for line in full():
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
