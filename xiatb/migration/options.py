"""What a user may ask of a migration beyond guest and destination: one value, checked once, at the daemon.

The command line, the supervisor and the manager pass it on as the plain fields of their request. A new option
is a field here, its check, and its flag in cli/migrate.py. What does not go together is refused with a hint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xiatb.errors import UsageError
from xiatb.migration.messages import KINDS, MODES
from xiatb.transport.config import CONTROLS

MAX_STREAMS = 16
MAX_DOWNTIME_MS = 2_000_000
"""QEMU's own bound of the downtime limit (MAX_MIGRATE_DOWNTIME, 2000 s)."""
TIMEOUT_ACTIONS = ("abort", "postcopy", "force")


@dataclass(frozen=True)
class Options:
    """All options with their defaults.

    mode: "precopy", "postcopy" (switched as soon as memory begins to be copied) or "hybrid" (pre-copy that is
    switched by the controller, or after `after_passes` passes when that is not 0). backing: copied disks go
    only down to a backing file that the destination has, too. bandwidth, bandwidth_most: first and highest
    cap of memory and disk transfer in MiB/s, 0: no cap. downtime: longest planned stop in ms. throttle: most
    that auto-converge may slow the guest's processors, in percent, 0: not at all. xbzrle: changed pages as
    differences; None: if the mode can make use of it. streams: channels for memory, more than one: multifd.
    congestion: congestion control of this side's channels by kind, others have the transport's default.
    encrypt: the bulk channels speak TLS. verify: every page is compared at both sides. first_pages: at the
    switch to post-copy the pages of the devices' rings are asked for in the destination's name. deadline:
    wished end in seconds after the beginning, 0: none. timeout: after so many seconds (0: never) and if the
    guest has not been handed over, timeout_action: "abort", "postcopy" (switch), or "force" (stop the guest
    and finish, however long that takes).
    """

    mode: str = "precopy"
    after_passes: int = 0
    backing: bool = False
    bandwidth: int = 0
    bandwidth_most: int = 0
    downtime: int = 500
    throttle: int = 0
    xbzrle: bool | None = None
    streams: int = 1
    congestion: Mapping[str, str] = field(default_factory=dict)
    encrypt: bool = True
    verify: bool = True
    first_pages: bool = True
    deadline: float = 0.0
    timeout: float = 0.0
    timeout_action: str = "abort"

    def to_json(self) -> dict[str, Any]:
        """Plain data; `parse` is its inverse."""
        return {**dataclasses.asdict(self), "congestion": dict(self.congestion)}

    @property
    def differences(self) -> bool:
        """Whether changed pages go as differences (xbzrle)."""
        return self.xbzrle if self.xbzrle is not None else self.streams == 1 and self.mode != "postcopy"

    @property
    def may_switch(self) -> bool:
        """Whether the hypervisor must be made ready for post-copy."""
        return self.mode != "precopy" or (self.timeout > 0 and self.timeout_action == "postcopy")


def parse(wanted: Mapping[str, Any]) -> Options:
    """Options of plain data; raises UsageError for an unknown one, a value that makes no sense, or what does
    not go together."""
    if unknown := sorted(set(wanted) - set(_CHECKS)):
        raise UsageError(f"no such option of a migration: {unknown[0]}", hint=f"known: {', '.join(_CHECKS)}")
    options = Options(**{name: _CHECKS[name](name, value) for name, value in wanted.items()})
    for wrong, what, hint in _conflicts(options):
        if wrong:
            raise UsageError(what, hint=hint)
    return options


def _conflicts(o: Options) -> list[tuple[bool, str, str]]:
    """(does it hold?, what is wrong, what to do)."""
    multifd, most = o.streams > 1, o.bandwidth_most
    switches = o.mode != "precopy" or o.timeout_action == "postcopy" and o.timeout > 0
    return [
        (multifd and switches, "post-copy does not go over several streams",
         "QEMU sends the pages that are asked for on the main stream only, and pages that are still on their "
         "way on another one would overwrite newer ones; use --streams 1 or --mode precopy"),
        (multifd and o.xbzrle is True, "differences (xbzrle) do not go over several streams",
         "QEMU sends whole pages there; leave out --xbzrle"),
        (o.after_passes > 0 and o.mode != "hybrid", "a number of passes is for the hybrid mode",
         "add --mode hybrid"),
        (o.mode == "postcopy" and o.throttle > 0, "auto-converge has no use in post-copy",
         "the guest has left before it could be slowed down; use --mode hybrid"),
        (o.mode == "postcopy" and most > 0, "a highest cap of the bandwidth has no use in post-copy",
         "it is for a pre-copy that does not converge; use --bandwidth alone, or --mode hybrid"),
        (o.mode == "postcopy" and o.deadline > 0, "a deadline has no use in post-copy",
         "there is nothing that could hurry it; use --mode hybrid"),
        (o.mode == "postcopy" and o.xbzrle is True, "differences (xbzrle) have no use in post-copy",
         "every page goes once; leave out --xbzrle"),
        (o.timeout_action != "abort" and not o.timeout, "an action at a time limit needs that limit",
         "add --timeout SECONDS"),
        (0 < most < o.bandwidth, "the highest cap of the bandwidth is below the first one",
         f"--bandwidth-most {o.bandwidth} or more"),
        (most > 0 and not o.bandwidth, "a highest cap needs a first one to rise from", "add --bandwidth"),
    ]  # fmt: skip


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise UsageError(f"{name}: a whole number from {low} to {high}, not {value!r}")
        return value

    return check


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e6:
        raise UsageError(f"{name}: seconds from 0 to 1000000, not {value!r}")
    return float(value)


def _one_of(*known: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if value not in known:
            raise UsageError(f"{name}: one of {', '.join(known)}, not {value!r}")
        return str(value)

    return check


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}: true or false, not {value!r}")
    return value


def _maybe(name: str, value: Any) -> bool | None:
    return None if value is None else _flag(name, value)


def _controls(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UsageError(f"{name}: channel kinds and their controls, not {value!r}")
    for kind, control in value.items():
        if kind not in KINDS or control not in CONTROLS:
            known = f"channels are {', '.join(KINDS)}; controls {', '.join(CONTROLS)}"
            raise UsageError(f"congestion {kind}={control}: {known}")
    return dict(value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "mode": _one_of(*MODES), "after_passes": _whole(0, 1000), "backing": _flag,
    "bandwidth": _whole(0, 1 << 20), "bandwidth_most": _whole(0, 1 << 20),
    "downtime": _whole(1, MAX_DOWNTIME_MS), "throttle": _whole(0, 99), "xbzrle": _maybe,
    "streams": _whole(1, MAX_STREAMS), "congestion": _controls, "encrypt": _flag, "verify": _flag,
    "first_pages": _flag,
    "deadline": _seconds, "timeout": _seconds, "timeout_action": _one_of(*TIMEOUT_ACTIONS),
}  # fmt: skip
TUNABLE = ("bandwidth", "downtime")
"""What may be changed while a migration runs."""


def parse_change(wanted: Mapping[str, Any]) -> dict[str, int]:
    """What to change of a running migration: at least one of TUNABLE. Raises UsageError."""
    if not wanted or (unknown := sorted(set(wanted) - set(TUNABLE))):
        what = f"{unknown[0]} cannot be changed while a migration runs" if wanted else "nothing to change"
        raise UsageError(what, hint=f"what can be: {', '.join(TUNABLE)}")
    return {name: int(_CHECKS[name](name, value)) for name, value in wanted.items()}
