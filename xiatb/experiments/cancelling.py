"""A migration that is cancelled while it copies: the guest must go on where it is as if nothing had been."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from xiatb.errors import XiatbError
from xiatb.lab.client import LabClient
from xiatb.node.control_protocol import ControlError

Json = dict[str, Any]
_ANSWER_S = 30.0


@dataclass(frozen=True)
class Cancelled:
    """An attempt from `source` to `destination`: the phase in which it was cancelled, how long it took until
    the daemons had settled it, and what was found afterwards."""

    guest: str
    source: str
    destination: str
    phase: str
    settled_ms: float
    reason: str
    stayed: bool
    contents: dict[str, bool]
    uptime_monotonic: bool
    stream_intact: bool

    def failures(self) -> list[str]:
        """What the verification found wrong, in words; empty when all holds."""
        found = {
            f"it ended as {self.reason!r}": self.reason == "cancelled",
            f"the guest is not running on {self.source}": self.stayed,
            "the guest's uptime went back or it booted again": self.uptime_monotonic,
            "the client's stream is not intact": self.stream_intact,
            "a file or the memory of the guest has the wrong checksum": all(self.contents.values()),
        }
        wrong = [words for words, holds in found.items() if not holds]
        return [f"cancelled move to {self.destination}: {words}" for words in wrong]

    def to_json(self) -> Json:
        """The object for `result.json`; keys are stable."""
        return asdict(self)


def cancel_in(lab: str, guest: str, destination: str, phase: str, options: Json) -> tuple[float, str]:
    """Begin to migrate, cancel when bytes flow in `phase` ("storage", "precopy").

    Returns the milliseconds from the cancellation to the end, and the code with which the migration ended.
    Raises XiatbError when it ended before it could be cancelled.
    """
    asked = 0.0
    with LabClient(lab, timeout=_ANSWER_S) as watching:
        events: Iterator[Json] = watching.stream("migrate", guest=guest, to=destination, **options)
        try:
            for event in events:
                flows = event["event"] == "progress" and event["transferred"] > 0
                if not asked and flows and event["phase"] == phase:
                    asked = time.monotonic()
                    with LabClient(lab, timeout=_ANSWER_S) as other:
                        other.request("migrate_cancel", guest=guest)
        except ControlError as error:
            if not asked:
                raise
            return (time.monotonic() - asked) * 1000, error.code
    raise XiatbError(f"the migration of {guest} ended before it was cancelled")


def runs_on(status: Json, guest: str) -> str:
    """The host on which `guest` runs by the lab's status; "" when it does not run."""
    for one in status["guests"]:
        if one["name"] == guest and one["state"] == "running":
            return str(one["on"])
    return ""
