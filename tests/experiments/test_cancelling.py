"""Cancelling in the middle, and what counts as a failure of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from xiatb.errors import XiatbError
from xiatb.experiments import cancelling
from xiatb.experiments.cancelling import Cancelled, cancel_in, runs_on
from xiatb.node.control_protocol import ControlError

GOOD: dict[str, Any] = {
    "guest": "vm1", "source": "hv2", "destination": "hv1", "phase": "storage", "settled_ms": 12.0,
    "reason": "cancelled", "stayed": True, "contents": {"file_before": True, "disk_during": True},
    "uptime_monotonic": True, "stream_intact": True,
}  # fmt: skip


class FakeLab:
    """A lab whose migration goes through `events` and ends with `error` once it was cancelled."""

    events: list[dict[str, Any]] = []
    error: ControlError | None = None
    asked: list[str] = []

    def __init__(self, lab: str, timeout: float) -> None:
        self.lab = lab

    def __enter__(self) -> FakeLab:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def request(self, op: str, **fields: Any) -> None:
        self.asked.append(f"{op} {fields['guest']}")

    def stream(self, op: str, **fields: Any) -> Iterator[dict[str, Any]]:
        yield from self.events
        if self.error is not None:
            raise self.error


def progress(phase: str, transferred: int) -> dict[str, Any]:
    return {"event": "progress", "phase": phase, "transferred": transferred}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> type[FakeLab]:
    monkeypatch.setattr(cancelling, "LabClient", FakeLab)
    monkeypatch.setattr(FakeLab, "asked", [])
    monkeypatch.setattr(FakeLab, "error", ControlError("cancelled", "cancelled by the user"))
    return FakeLab


def test_it_is_cancelled_once_bytes_flow_in_the_phase(lab: type[FakeLab]) -> None:
    lab.events = [
        {"event": "phase", "phase": "storage"}, progress("storage", 0), progress("storage", 9),
        progress("storage", 99),
    ]  # fmt: skip
    taken, code = cancel_in("lab", "vm1", "hv1", "storage", {})
    assert (code, lab.asked) == ("cancelled", ["migrate_cancel vm1"]) and taken >= 0


def test_a_migration_that_fails_by_itself_was_not_cancelled(lab: type[FakeLab]) -> None:
    lab.events = [progress("storage", 9)]
    lab.error = ControlError("no-room", "the disk does not fit")
    with pytest.raises(ControlError, match="does not fit"):
        cancel_in("lab", "vm1", "hv1", "precopy", {})


def test_a_migration_that_succeeds_was_not_cancelled(
    lab: type[FakeLab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.events = [progress("storage", 9), {"event": "result"}]
    monkeypatch.setattr(FakeLab, "error", None)
    with pytest.raises(XiatbError, match="ended before"):
        cancel_in("lab", "vm1", "hv1", "storage", {})


def test_what_holds_is_no_failure() -> None:
    assert Cancelled(**GOOD).failures() == []
    assert Cancelled(**GOOD).to_json() == GOOD


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("reason", "failed", "ended as 'failed'"),
        ("stayed", False, "not running on hv2"),
        ("uptime_monotonic", False, "uptime"),
        ("stream_intact", False, "stream"),
        ("contents", {"file_before": True, "disk_during": False}, "checksum"),
    ],
)
def test_each_thing_that_does_not_hold_is_a_failure(field: str, value: Any, said: str) -> None:
    (failure,) = Cancelled(**{**GOOD, field: value}).failures()
    assert said in failure


def test_where_a_guest_runs_by_the_status() -> None:
    status = {
        "guests": [
            {"name": "vm1", "state": "running", "on": "hv2"},
            {"name": "vm2", "state": "paused", "on": "hv1"},
        ]
    }
    assert (runs_on(status, "vm1"), runs_on(status, "vm2"), runs_on(status, "vm3")) == ("hv2", "", "")
