"""What a user may ask of a migration beyond guest and destination: one value, checked once, at the daemon.

The command line, the supervisor and the manager pass it on as the plain fields of their request. A new option
is a field here, its check, and its flag in cli/migrate.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xiatb.errors import UsageError
from xiatb.migration.messages import KINDS
from xiatb.transport.config import CONTROLS


@dataclass(frozen=True)
class Options:
    """`bandwidth` caps memory and disk transfer in MiB/s, 0: no cap. `congestion` names the congestion
    control of this side's channels by kind, others have the transport's default. `encrypt`: the bulk channels
    speak TLS."""

    bandwidth: int = 0
    congestion: Mapping[str, str] = field(default_factory=dict)
    encrypt: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain data; `parse` is its inverse."""
        return {**dataclasses.asdict(self), "congestion": dict(self.congestion)}


def parse(wanted: Mapping[str, Any]) -> Options:
    """Options of plain data; raises UsageError for an unknown one or a value that makes no sense."""
    checks: dict[str, Callable[[str, Any], Any]] = {
        "bandwidth": _whole(0, 1 << 20), "congestion": _controls, "encrypt": _flag,
    }  # fmt: skip
    if unknown := sorted(set(wanted) - set(checks)):
        raise UsageError(f"no such option of a migration: {unknown[0]}", hint=f"known: {', '.join(checks)}")
    return Options(**{name: checks[name](name, value) for name, value in wanted.items()})


def _whole(low: int, high: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise UsageError(f"{name}: a whole number from {low} to {high}, not {value!r}")
        return value

    return check


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}: true or false, not {value!r}")
    return value


def _controls(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UsageError(f"{name}: channel kinds and their controls, not {value!r}")
    for kind, control in value.items():
        if kind not in KINDS or control not in CONTROLS:
            known = f"channels are {', '.join(KINDS)}; controls {', '.join(CONTROLS)}"
            raise UsageError(f"congestion {kind}={control}: {known}")
    return dict(value)
