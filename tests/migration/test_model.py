"""The model check: every interleaving of messages, losses, crashes, restarts, cancellation and timers within
bounds; and that it finds bugs when they are there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.migration.explore import explore
from tests.migration.model import Violation, World
from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.source import SourceMachine

BOUNDS: list[dict[str, Any]] = [
    {},
    {"cancels": 1, "faults": 1},
    {"crashes": 2},
    {"cuts": 2},
    {"cuts": 1, "crashes": 1},
    {"cuts": 1, "crashes": 1, "heals": False},
    {"cuts": 1, "timers": 1},
    {"crashes": 1, "timers": 1},
    {"cuts": 1, "cancels": 1, "faults": 1},
    {"crashes": 1, "cancels": 1, "faults": 1},
    {"delegates": True, "cancels": 1, "faults": 1},
    {"delegates": True, "cuts": 1, "timers": 1},
    {"delegates": True, "crashes": 1},
    {"delegates": True, "mode": "postcopy", "cuts": 1},
    {"mode": "postcopy", "cuts": 1},
    {"mode": "postcopy", "crashes": 2},
    {"mode": "postcopy", "cuts": 1, "cancels": 1},
    {"mode": "postcopy", "cuts": 1, "hurries": 1},
    {"mode": "postcopy", "deaths": 1, "cuts": 1},
    {"falls": 1, "cuts": 1},
    {"falls": 1, "crashes": 1},
    {"deaf": True, "cancels": 1, "timers": 1},
    {"mode": "hybrid", "deaths": 1, "crashes": 1},
    {"mode": "hybrid", "crashes": 1, "cancels": 1, "timers": 1},
]


def name_of(bounds: dict[str, Any]) -> str:
    return "+".join(f"{k}={v}" for k, v in bounds.items()) or "quiet"


@pytest.mark.parametrize("bounds", BOUNDS, ids=name_of)
def test_guest_runs_exactly_once_in_every_interleaving(bounds: dict[str, Any]) -> None:
    assert explore(World(**bounds)) > 100


class WithoutFence(SourceMachine):
    """Hands over without freezing the copy that stays."""

    def _do(self, action: a.Action) -> None:
        if not isinstance(action, a.Freeze):
            super()._do(action)


class WithoutJournal(SourceMachine):
    """Does not write down that it hands over."""

    def _do(self, action: a.Action) -> None:
        if not isinstance(action, a.Record):
            super()._do(action)


class ResumesOnTimeout(SourceMachine):
    """Takes silence for a no."""

    def on_timeout(self, now: float) -> None:
        if self.state == "asking" and self.record == "handover":
            self._settled_here(now)
        else:
            super().on_timeout(now)


class EagerWithDisks(SourceMachine):
    """Removes the disk when libvirt is done here, before anybody confirmed."""

    def on_stopped(self, t_stop: int, now: float) -> None:
        super().on_stopped(t_stop, now)
        self._do(a.RemoveDisks())


class GivesUpAsking(SourceMachine):
    """Ends in doubt and leaves the guest standing."""

    def on_dial_failed(self, reason: str, now: float) -> None:
        self._finish(False, "lost", reason)


class CancelsTooLate(SourceMachine):
    """Lets the guest go on here when the user cancels after the hand-over."""

    def cancel(self, reason: str, now: float, code: str = "cancelled") -> bool:
        if self.state == "handover":
            self._settled_here(now)
            return True
        return super().cancel(reason, now, code)


class AnswersWithoutLooking(DestinationMachine):
    """Says that the guest is not here as long as it has not seen it run."""

    def _inquire(self, message: m.Inquire, now: float) -> None:
        if self.state in ("transfer", "switchover"):
            self._settle("none")
            self._answer(now)
        else:
            super()._inquire(message, now)


class LetsAnyFinishThrough(SourceMachine):
    """Lets libvirt start the guest there though the migration was given up."""

    may_start = property(lambda self: True)  # type: ignore[assignment]


class KeepsTheDisk(SourceMachine):
    """Does not remove its disk once the guest has gone."""

    def _do(self, action: a.Action) -> None:
        if not isinstance(action, a.RemoveDisks):
            super()._do(action)


class ForgetsAnArrival(DestinationMachine):
    """Does not write down that the guest has run here."""

    def _do(self, action: a.Action) -> None:
        if not (isinstance(action, a.Record) and action.state == "arrived"):
            super()._do(action)


class TakesADeadGuestForNone(DestinationMachine):
    """Says that the guest was never there when it has run there and died."""

    def on_cleaned(self, fate: str, leftover: tuple[str, ...], now: float) -> None:
        self.t_resume = 0
        super().on_cleaned(fate, leftover, now)


class LeavesTheRoute(SourceMachine):
    """Does not take the guest's packets back when it runs on."""

    def on_resumed_here(self, now: float) -> None:
        self._detached = False


class ForgetsPostcopy(DestinationMachine):
    """Treats a guest in post-copy as one that has arrived."""

    def _tell(self) -> None:
        self.fate = self.fate or "here"
        super()._tell()


@pytest.mark.parametrize(
    ("bug", "bounds", "found"),
    [
        (WithoutFence, {"crashes": 1}, "two copies run"),
        (LeavesTheRoute, {"delegates": True, "faults": 1}, "packets go to the destination"),
        (WithoutFence, {"cuts": 1}, "two copies run"),
        (WithoutJournal, {"crashes": 1}, "no copy runs|left at the source"),
        (ResumesOnTimeout, {"cuts": 1, "timers": 2}, "two copies run"),
        (EagerWithDisks, {}, "disk went too early"),
        (LetsAnyFinishThrough, {"deaf": True, "cancels": 1, "timers": 1}, "two copies run"),
        (KeepsTheDisk, {}, "left at the source"),
        (TakesADeadGuestForNone, {"falls": 1, "cuts": 1}, "older state"),
        (ForgetsAnArrival, {"falls": 1, "crashes": 1}, "older state"),
        (GivesUpAsking, {"crashes": 1}, "no copy runs|is left"),
        (CancelsTooLate, {"cancels": 1}, "two copies run"),
        (AnswersWithoutLooking, {"cuts": 1}, "two copies run"),
        (ForgetsPostcopy, {"mode": "postcopy", "cuts": 1}, "disk went too early|not settled|hangs|left"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_seeded_bugs_are_found(bug: Any, bounds: dict[str, Any], found: str) -> None:
    side = {"source": bug} if issubclass(bug, SourceMachine) else {"destination": bug}
    with pytest.raises(Violation, match=found):
        explore(World(**side, **bounds))
