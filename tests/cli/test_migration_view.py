"""How plans, decisions and pages are shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.migration.samples import REQUEST
from xiatb.cli import migrationview as view
from xiatb.migration.calibration import Memory
from xiatb.migration.controller import Bounds, Controller
from xiatb.migration.options import parse
from xiatb.migration.overview import overview
from xiatb.migration.planning import foresee
from xiatb.migration.predictor import Workload
from xiatb.migration.probe import Goodput


def plan(**options: Any) -> dict[str, Any]:
    workload = Workload(ram=64 << 20, nonzero=32 << 20, dirty_rate=20e6, working_set=8 << 20)
    told = foresee(
        replace(REQUEST, tls="ab" * 32), parse(options), "hv2", workload, Memory(),
        Goodput(10e6, 0.0123, 4_000_000, 0.4),
    ).as_dict()  # fmt: skip
    return {"from": "hv1", "to": "hv2", "admitted": True, "code": "", "reason": "", **told}


def test_a_plan_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    view.tell_plan(plan(bandwidth=4, bandwidth_most=8, throttle=30, deadline=60, downtime=200))
    out = capsys.readouterr().out
    for word in (
        "vm1 would move from hv1 to hv2", "1 rpc, 1 ram, 1 nbd, encrypted", "80.0 Mbit/s (by probe)",
        "round trip 12.3 ms", "64.0 MiB, 32.0 MiB not zero", "downtime at most 200 ms",
        "bandwidth 4.0 MiB/s to 8.0 MiB/s", "up to 30 %", "deadline 60 s", "downtime limit 60 ms",
    ):  # fmt: skip
        assert word in out, (word, out)


def test_a_refusal_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    refused = {"from": "hv1", "to": "hv2", "admitted": False, "code": "no-room", "reason": "hv2 is full"}
    view.tell_plan(refused)
    assert "no (no-room): hv2 is full" in capsys.readouterr().out


def test_pages_of_each_pass_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"zero": 5, "normal": 7, "xbzrle": 0, "repeated": 1, "resent": 0, "unchanged": 0}
    faults = {"count": 3, "p50_ms": 11.5, "p99_ms": 20.0, "max_ms": 21.0}
    view.tell_pages({"passes": [counts], "faults": faults, "verified": True})
    out = capsys.readouterr().out
    assert "every page arrived as it was sent" in out
    assert "3: median 11.5 ms, 99 % 20.0 ms, longest 21.0 ms" in out
    assert out.splitlines()[1].split() == ["1", "5", "7", "0", "1", "0", "0"]
    assert "NOT as they were sent: pc.ram at 0x0" in view.verified(
        {"verified": False, "places": ["pc.ram at 0x0"]}
    )
    assert view.verified({"verified": None, "reason": "switched off"}) == "not verified: switched off"


def test_a_prediction_stands_behind_what_was_measured() -> None:
    assert view.predicted({"predicted": {"total_s": 1.25}}, "total_s") == " (predicted 1250 ms)"
    endless = {"predicted": {"total_s": 620.0, "downtime_s": 3.0, "converges": False}}
    assert view.predicted(endless, "total_s") == " (predicted: it would not end by itself)"
    assert view.predicted({"predicted": None}, "total_s") == view.predicted({}, "total_s") == ""


def test_a_decision_that_failed_says_so() -> None:
    event = {"kind": "throttle", "value": 20, "reason": "why", "failed": "no such parameter"}
    assert view.decision(event) == (
        "controller: the guest's processors throttled to 80 %: why (failed: no such parameter)"
    )


def test_a_running_migration_is_told_with_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    controller = Controller(Bounds(downtime_ms=300, bandwidth=4 << 20, bandwidth_most=8 << 20, throttle=50))
    controller.limit_ms = 60
    progress = {"pass": 2, "rate": 3 << 20, "remaining": 5 << 20, "total": 64 << 20, "dirty_rate": 1 << 20}
    asked = {"kind": "bandwidth", "value": 0, "reason": "asked for", "by": "user"}
    told = overview(REQUEST, "hv2", [{"name": "precopy", "start_ns": 1}], progress, controller, [asked], 0)
    view.tell_running({"from": "hv1", **told})
    out = capsys.readouterr().out
    for word in (
        "vm1 is being moved from hv1 to hv2", "copying memory, ",
        "pass 2, 3.0 MiB/s, 5.0 MiB of 64.0 MiB left", "the guest dirties 1.0 MiB/s", "limit 60 ms of 300 ms",
        "4 MiB/s, may rise to 8 MiB/s", "0 % of 50 %",
        "user: no bandwidth cap: asked for",
    ):  # fmt: skip
        assert word in out, (word, out)


def test_only_what_was_not_as_usual_is_told_of_channels_and_disk() -> None:
    assert view.channels({"encrypted": True, "congestion": {}}) == view.disk({"storage": False}) == []
    odd = {"encrypted": False, "congestion": {"rpc": "reno", "ram": "bbr", "nbd": "bbr"}}
    assert view.channels(odd) == [("channels", "in the clear; reno on rpc; bbr on ram, nbd")]
    copied = {"storage": True, "incremental": True, "bytes_qemu": {"nbd": 5 << 20}}
    assert view.disk(copied) == [("disk sent", "5.0 MiB, what lies above its backing file")]
