"""Which commands shape a link, and what is chosen on which host."""

from __future__ import annotations

import pytest

from xiatb.errors import HostNotAbleError
from xiatb.lab import impairments
from xiatb.lab.plan import Impairment
from xiatb.lab.runner import RecordingRunner, Result

MS = 10**6
PROBE = ("unshare", "--net", "--", "tc", "qdisc", "add", "dev", "lo", "root")


def test_no_rate_no_command() -> None:
    assert impairments.rate_command("eth0", 1500, Impairment(delay=MS)) is None


@pytest.mark.parametrize(
    ("rate", "mtu", "burst"), [(10**7, 1500, 16384), (10**8, 9000, 25000), (10**7, 65000, 65014)]
)
def test_burst_is_the_larger_of_16_kb_2_ms_and_a_frame(rate: int, mtu: int, burst: int) -> None:
    command = impairments.rate_command("eth0", mtu, Impairment(rate=rate, queue=3000))
    assert command is not None
    assert command[command.index("burst") + 1] == str(burst)
    assert int(command[command.index("limit") + 1]) >= burst
    assert command[command.index("rate") + 1] == f"{rate}bit"


def test_netem_is_told_everything_but_the_rate_and_holds_what_is_on_the_way() -> None:
    impairment = Impairment(rate=10**8, delay=50 * MS, jitter=MS, loss=1000, duplicate=500, reorder=10_000)
    command = " ".join(impairments.netem_command("l0b", impairment) or [])
    assert command.startswith("tc qdisc replace dev l0b root handle 10: netem limit ")
    assert command.endswith("delay 50000us 1000us loss random 0.1% duplicate 0.05% reorder 1%")
    assert int(command.split("limit ")[1].split()[0]) * 500 >= 10**8 // 8 * 0.051


def test_bursty_loss_is_a_gilbert_model_with_the_same_mean() -> None:
    one = Impairment(loss=10_000, burst=5)
    words = impairments.netem_command("l0b", one) or []
    at = words.index("gemodel")
    p, r, bad, good = (float(word.rstrip("%")) / 100 for word in words[at + 1 : at + 5])
    assert (round(1 / r), bad, good) == (5, 1, 0)
    assert p / (p + r) == pytest.approx(0.01) == one.mean_loss
    given = Impairment(gemodel=(10_000, 200_000, 500_000, 1000))
    assert (impairments.netem_command("l0b", given) or [])[-5:] == ["gemodel", "1%", "20%", "50%", "0.1%"]
    assert "random" in (impairments.netem_command("l0b", Impairment(loss=10_000, burst=1)) or [])


def test_netem_does_not_reorder_without_delay_and_is_none_without_need() -> None:
    command = impairments.netem_command("eth0", Impairment(loss=10_000, reorder=10_000)) or []
    assert "reorder" not in command
    assert impairments.netem_command("eth0", Impairment(rate=10**6)) is None


def test_the_probe_tries_a_real_qdisc() -> None:
    without = RecordingRunner({(*PROBE, "netem"): Result((), 2, "", "Unknown qdisc")})
    assert impairments.probe_netem(RecordingRunner())
    assert not impairments.probe_netem(without)


def test_a_host_that_cannot_shape_is_refused() -> None:
    impairments.require_rate(RecordingRunner())
    with pytest.raises(HostNotAbleError, match="no TBF"):
        impairments.require_rate(RecordingRunner({(*PROBE, "tbf"): Result((), 2)}))


def test_drops_are_those_of_the_root() -> None:
    told = '[{"kind":"tbf","root":true,"drops":7},{"kind":"bfifo","parent":"1:1","drops":5}]'
    assert impairments.drops(told) == 7
    assert impairments.drops("") == 0
