"""What a host remembers of its migrations to each peer, so that the next prediction is better: the rate that
memory had, what preparing and finishing took, how far the last prediction of the downtime was off.

One JSON file in the daemon's state directory, written as a whole; a damaged one is as good as none.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self

from xiatb.migration.predictor import Costs

log = logging.getLogger("xiatb.migration")
WEIGHT: Final = 0.5
"""Of the newest migration in what is remembered."""
LEAST_BYTES: Final = 4 << 20
"""A transfer of fewer bytes has no rate worth remembering."""
MAX_PEERS: Final = 1024


@dataclass(frozen=True)
class Memory:
    """Of one peer. goodput: bytes of memory a second in the last uncapped migration, 0 when unknown; share:
    that over the probe's rate; costs: see Costs; runs: migrations that went into it."""

    goodput: float = 0.0
    share: float = 1.0
    costs: Costs = Costs()
    runs: int = 0

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `asdict`; raises KeyError, TypeError, ValueError."""
        known = {one.name for one in fields(Costs)}
        told = {name: value for name, value in data["costs"].items() if name in known}
        device = int(told.pop("device_bytes", Costs().device_bytes))
        costs = Costs(device_bytes=device, **{name: float(value) for name, value in told.items()})
        return cls(float(data["goodput"]), float(data["share"]), costs, int(data["runs"]))

    def after(self, result: Mapping[str, Any], probed: float) -> Memory:
        """With a migration that has succeeded: its result, and the probe's rate before it (0: none)."""
        now = _observed(result)
        weight = WEIGHT if self.runs else 1.0
        costs = replace(
            self.costs,
            prepare_s=_mix(self.costs.prepare_s, now.get("prepare_s"), weight),
            finish_s=_mix(self.costs.finish_s, now.get("finish_s"), weight),
        )
        predicted, downtime = result.get("predicted"), result.get("downtime_ms")
        if predicted and downtime is not None and not predicted["switches"]:
            off = downtime / 1000 - predicted["downtime_s"]
            costs = replace(costs, stop_s=min(2.0, max(0.0, costs.stop_s + off * WEIGHT)))
        goodput = now.get("goodput", 0.0)
        share = self.share
        if goodput and probed:
            share = min(2.0, max(0.2, _mix(share, goodput / probed, weight)))
        return Memory(goodput or self.goodput, share, costs, self.runs + 1)


def _mix(old: float, new: float | None, weight: float) -> float:
    return old if new is None else (1 - weight) * old + weight * new


def _observed(result: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of the phases around the transfer, and the rate of memory before the stop; after a post-copy,
    whose pages come in the time after RESUME, only those before."""
    switched = any(
        str(one.get("status", "")).startswith("postcopy") for one in result.get("qemu_states", ())
    )
    begun: dict[str, float] = {}
    for phase in result.get("phases", ()):
        begun.setdefault(phase["name"], phase["start_ns"] / 1e9)
    request, stop, resume, commit = (
        (result.get(f"t_{name}_ns") or 0) / 1e9 for name in ("request", "stop", "resume", "commit")
    )
    found = {}
    first = min((begun[name] for name in ("storage", "precopy") if name in begun), default=0.0)
    if request and first > request:
        found["prepare_s"] = first - request
    if switched:
        return found
    if resume and commit > resume:
        found["finish_s"] = commit - resume
    sent = int(result.get("bytes_qemu", {}).get("ram", 0))
    begin = begun.get("precopy", 0.0)
    if sent >= LEAST_BYTES and begin and stop > begin and not result.get("capped"):
        found["goodput"] = sent / (stop - begin)
    return found


class PairBook:
    """The memories of one host, by peer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Memory] = {}
        try:
            data = json.loads(path.read_text())
            self._known = {str(peer): Memory.parse(entry) for peer, entry in data.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: %s; predictions begin anew", path, error)

    def of(self, peer: str) -> Memory:
        """What is remembered of this peer; the defaults when nothing is."""
        return self._known.get(peer, Memory())

    def learn(self, peer: str, result: Mapping[str, Any], probed: float = 0.0) -> None:
        """Take a successful migration in; a file that cannot be written is logged."""
        if peer not in self._known and len(self._known) >= MAX_PEERS:
            return
        self._known[peer] = self.of(peer).after(result, probed)
        partial = self._path.with_suffix(".partial")
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({name: asdict(memory) for name, memory in self._known.items()}, file)
            partial.replace(self._path)
        except OSError as error:
            log.warning("%s: %s", self._path, error)
