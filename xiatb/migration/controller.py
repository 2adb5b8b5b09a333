"""The adaptive controller of a transfer: it watches dirty rate, goodput and round trip, and picks downtime
limit, CPU throttle, bandwidth cap or the switch to post-copy, within the limits that the user set.

Pure: samples in, decisions out, each with its reason. What the policy does:

- The downtime limit starts low, so that a calm guest gets a short downtime. When passes stop getting
  smaller, the limit becomes what the hot set needs at the measured goodput, at most the user's limit less
  the round trips that a stop takes.
- When the hot set doesn't fit into the user's limit, or the guest dirties memory about as fast as it can be
  sent, pre-copy won't end by itself: then the cap on the bandwidth is raised as far as allowed, the guest is
  switched over by post-copy if the mode allows it, or its CPUs are throttled in steps if that is allowed.
- A deadline that pre-copy would miss counts as not converging.
- A mode that is told to switch after a number of passes (hybrid) does so without further ado.

QEMU stops the guest once what remains takes less than the limit at the rate it measured
(reference/migration.md 3.6); the ideas are Ibrahim's (SC'11) and QEMU's own auto-converge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

FIRST_LIMIT_MS: Final = 60
NO_LIMIT_MS: Final = 2_000_000
"""QEMU's highest downtime limit: the guest is stopped at its next look."""
MARGIN: Final = 1.25
"""By how much a chosen limit exceeds what the hot set needs: rates are measured, not known."""
SHRINKS: Final = 0.8
"""A pass that begins with less than this part of what its predecessor began with is progress."""
KEEPS_UP: Final = 0.8
"""A guest that dirties more than this part of the goodput leaves pre-copy no chance."""
PATIENCE: Final = 2
"""Passes without progress before anything is decided."""
PUSH: Final = 1.5
"""Factor of a limit that should do and does not."""
THROTTLE_FIRST: Final = 20
THROTTLE_STEP: Final = 15
SETTLE_S: Final = 0.4
"""Shortest time between two decisions: each must show its effect first."""


@dataclass(frozen=True)
class Bounds:
    """What the user allows. downtime_ms: the longest planned stop. throttle: highest CPU throttle in percent,
    0 for none. bandwidth, bandwidth_most: first and highest cap in bytes a second, 0 for no cap. postcopy:
    the guest may be switched over. after_passes: switch to post-copy after so many passes, 0 to leave it to
    the controller. deadline_s: wished end after the beginning, 0 for none."""

    downtime_ms: int = 500
    throttle: int = 0
    bandwidth: int = 0
    bandwidth_most: int = 0
    postcopy: bool = False
    after_passes: int = 0
    deadline_s: float = 0.0


@dataclass(frozen=True)
class Sample:
    """The state of the transfer at `now` (seconds since the transfer began). passes: passes over memory
    begun; remaining: bytes still to send in this pass; dirty_rate, goodput: bytes a second; round_trip:
    seconds; backlog: bytes between QEMU and the peer's acknowledgement."""

    now: float
    passes: int
    remaining: int
    dirty_rate: float
    goodput: float
    round_trip: float = 0.0
    backlog: int = 0


@dataclass(frozen=True)
class Decision:
    """One thing to do. kind: "downtime" (value in ms), "throttle" (percent), "bandwidth" (bytes a second) or
    "postcopy" (value 0)."""

    t: float
    kind: str
    value: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For the log and the result file; t in milliseconds since the transfer began."""
        return {
            "t_ms": round(self.t * 1000, 1),
            "kind": self.kind,
            "value": self.value,
            "reason": self.reason,
        }


@dataclass
class _Trend:
    """What each pass began with, and for how many passes that has not become smaller."""

    passes: int = 0
    hot: int = 0
    stalled: int = 0
    starts: list[int] = field(default_factory=list)


class Controller:
    """Feed it a sample about ten times a second; it says what to change."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.limit_ms = 0
        self.throttle = 0
        self.bandwidth = bounds.bandwidth
        self.switched = False
        self.decisions: list[Decision] = []
        self._trend = _Trend()
        self._changed = float("-inf")
        self._throttled_in = 0  # the pass in which the throttle was set last

    def observe(self, sample: Sample) -> list[Decision]:
        """The decisions to carry out now, in order; they are kept in `decisions`, too."""
        made: list[Decision] = []
        if not self.limit_ms:
            first = min(FIRST_LIMIT_MS, self._room(sample))
            made.append(self._limit(sample, first, "a calm guest gets a short downtime"))
        if self.switched:
            return made
        self._follow(sample)
        if self.bounds.postcopy and self.bounds.after_passes and sample.passes > self.bounds.after_passes:
            made.append(self._switch(sample, f"{self.bounds.after_passes} passes were asked for"))
        elif sample.now - self._changed >= SETTLE_S and sample.goodput >= 1:
            made += self._judge(sample)
        return made

    def _follow(self, sample: Sample) -> None:
        """Note what a new pass begins with."""
        trend = self._trend
        if sample.passes <= trend.passes:
            return
        trend.passes = sample.passes
        if sample.passes < 2:
            return
        before = trend.starts[-1] if trend.starts else None
        trend.starts.append(sample.remaining)
        trend.hot = max(trend.starts[-2:])
        shrinks = before is None or sample.remaining < before * SHRINKS
        trend.stalled = 0 if shrinks else trend.stalled + 1

    def _judge(self, sample: Sample) -> list[Decision]:
        """What to do about a transfer that has begun; [] to let it go on."""
        trend = self._trend
        late = self._late(sample)
        if not late and (trend.passes < 2 or trend.stalled < PATIENCE):
            return []
        needed = int(1000 * MARGIN * (trend.hot + sample.backlog) / sample.goodput)
        room = self._room(sample)
        if trend.hot and needed <= room:
            if needed <= self.limit_ms:
                return self._push(sample)
            why = f"the hot set of {trend.hot >> 10} KiB needs {needed} ms at {_rate(sample.goodput)}"
            return [self._limit(sample, needed, why)]
        if late:
            why = late
        elif sample.dirty_rate > KEEPS_UP * sample.goodput:
            why = f"the guest dirties {_rate(sample.dirty_rate)} of {_rate(sample.goodput)}"
        else:
            why = f"the hot set would need {needed} ms, {room} ms are allowed"
        return self._force(sample, why)

    def _room(self, sample: Sample) -> int:
        """Milliseconds of the user's limit that data may take. The end of a pre-copy takes one and a half
        round trips besides (reference/migration.md 3.6), but at most three quarters are kept for those."""
        whole = self.bounds.downtime_ms
        return max(1, whole // 4, int(whole - 1500 * sample.round_trip))

    def _push(self, sample: Sample) -> list[Decision]:
        """The hot set should fit into the limit, and yet the guest goes on: what is measured here is not
        quite what QEMU sees (it counts whole pages, xbzrle sends differences)."""
        limit = min(self._room(sample), int(self.limit_ms * PUSH))
        if limit <= self.limit_ms:
            return []
        return [self._limit(sample, limit, f"{PATIENCE} passes without progress at {self.limit_ms} ms")]

    def _late(self, sample: Sample) -> str:
        """Why the deadline will be missed at this pace; "" when it won't."""
        if not self.bounds.deadline_s:
            return ""
        left = self.bounds.deadline_s - sample.now
        needs = sample.remaining / sample.goodput
        if needs <= left:
            return ""
        return f"{needs:.1f} s are needed for this pass, {max(left, 0.0):.1f} s are left to the deadline"

    def _force(self, sample: Sample, why: str) -> list[Decision]:
        """Make a transfer end that won't end by itself, by the mildest means that is left."""
        bounds = self.bounds
        if self.bandwidth and bounds.bandwidth_most > self.bandwidth:
            self.bandwidth = min(bounds.bandwidth_most, self.bandwidth * 2)
            return [self._decide(sample, "bandwidth", self.bandwidth, why)]
        if bounds.postcopy and not bounds.after_passes:
            return [self._switch(sample, why)]
        if self.throttle < bounds.throttle:
            if sample.passes <= self._throttled_in:
                return []  # QEMU throttles between two passes: the last step has not had its effect
            self._throttled_in = sample.passes
            step = THROTTLE_STEP if self.throttle else THROTTLE_FIRST
            self.throttle = min(bounds.throttle, self.throttle + step)
            return [self._decide(sample, "throttle", self.throttle, why)]
        if self.limit_ms < (room := self._room(sample)):
            return [self._limit(sample, room, f"{why}; nothing else is allowed")]
        return []

    def _limit(self, sample: Sample, milliseconds: int, why: str) -> Decision:
        self.limit_ms = milliseconds
        return self._decide(sample, "downtime", milliseconds, why)

    def _switch(self, sample: Sample, why: str) -> Decision:
        self.switched = True
        return self._decide(sample, "postcopy", 0, why)

    def _decide(self, sample: Sample, kind: str, value: int, why: str) -> Decision:
        decision = Decision(sample.now, kind, value, why)
        self.decisions.append(decision)
        if len(self.decisions) > 1:
            self._changed = sample.now
        self._trend.stalled = 0
        return decision


def _rate(bytes_a_second: float) -> str:
    return f"{bytes_a_second * 8 / 1e6:.1f} Mbit/s"


def words(entry: Mapping[str, Any]) -> str:
    """A decision (see Decision.as_dict) in words, for a log or a user."""
    value = int(entry["value"])
    act = {
        "downtime": f"downtime limit {value} ms" if value < NO_LIMIT_MS else "no downtime limit",
        "bandwidth": f"bandwidth cap {value / (1 << 20):.0f} MiB/s" if value else "no bandwidth cap",
        "throttle": f"the guest's processors throttled to {100 - value} %",
        "postcopy": "switch to post-copy",
        "join": "the guest joins by itself when it runs, its connections wait for that",
        "recovery": f"attempt {value} to go on has failed",
    }[str(entry["kind"])]
    return f"{act}: {entry['reason']}"
