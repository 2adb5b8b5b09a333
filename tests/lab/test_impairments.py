"""Which commands shape a link, and what is chosen on which host."""

from __future__ import annotations

import pytest

from xiatb.errors import HostNotAbleError
from xiatb.lab import impairments
from xiatb.lab.plan import EndPlan, Impairment, LinkPlan
from xiatb.lab.runner import RecordingRunner, Result

MS = 10**6
PROBE = ("unshare", "--net", "--", "tc", "qdisc", "add", "dev", "lo", "root")


def link(forward: Impairment) -> LinkPlan:
    return LinkPlan(0, EndPlan("a", "eth0"), EndPlan("b", "eth0"), 1500, forward, Impairment())


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


def test_netem_goes_below_the_shaper_and_holds_what_is_on_the_way() -> None:
    impairment = Impairment(rate=10**8, delay=50 * MS, jitter=MS, loss=1000, duplicate=500, reorder=10_000)
    command = " ".join(impairments.netem_command("eth0", impairment) or [])
    assert "parent 1:1" in command
    assert command.endswith("delay 50000us 1000us loss 0.1% duplicate 0.05% reorder 1%")
    assert int(command.split("limit ")[1].split()[0]) * 500 >= 10**8 // 8 * 0.051


def test_netem_alone_is_at_the_root_and_does_not_reorder_without_delay() -> None:
    command = impairments.netem_command("eth0", Impairment(loss=10_000, reorder=10_000)) or []
    assert "root" in command
    assert "reorder" not in command
    assert impairments.netem_command("eth0", Impairment(rate=10**6)) is None


def test_the_probe_decides_and_nothing_is_silently_left_out() -> None:
    without = RecordingRunner({(*PROBE, "netem"): Result((), 2, "", "Unknown qdisc")})
    assert impairments.probe_netem(RecordingRunner())
    assert not impairments.probe_netem(without)
    assert impairments.backend(link(Impairment(delay=MS)), netem=True) == "netem"
    assert impairments.backend(link(Impairment(loss=1)), netem=False) == "delay-line"
    assert impairments.backend(link(Impairment(rate=10**6)), netem=False) == "none"


def test_a_host_that_cannot_shape_is_refused() -> None:
    impairments.require_rate(RecordingRunner())
    with pytest.raises(HostNotAbleError, match="no TBF"):
        impairments.require_rate(RecordingRunner({(*PROBE, "tbf"): Result((), 2)}))
