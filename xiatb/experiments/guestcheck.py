"""Did a guest live through it? Its clock, its boot, its files and its memory, checked through its agent.

Every content is computed from a seed on the host too, so the guest's own word is never trusted for
what a file should hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xiatb.guests.agent.pattern import digest_of_file, digest_of_region

Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""One agent request (docs/agent-protocol.md) to its result."""

FILE_BYTES = 2 << 20
_WRITER = "writer"


@dataclass(frozen=True)
class Clock:
    """The guest's monotonic clock in nanoseconds and the id of its boot."""

    monotonic_ns: int
    boot_id: str


class GuestCheck:
    """Checks of one guest over one migration: `before`, then `after`."""

    def __init__(self, ask: Ask, seed: int, path: str = "") -> None:
        """`seed` makes the file's content differ from that of other migrations; `path` is where it lies,
        "": a place of its own."""
        self._ask = ask
        self._seed = seed
        self._path = path or f"/var/tmp/before-{seed}"
        self._clock: Clock | None = None

    def before(self) -> None:
        """Write a file and note the clock."""
        self._ask({"op": "write_file", "path": self._path, "size": FILE_BYTES, "seed": self._seed})
        self._clock = self._now()

    def start_writer(self, memory_rate: int, disk_rate: int, memory_set: int, disk_set: int) -> None:
        """Let the guest dirty `memory_rate` and `disk_rate` bytes a second of sets of the given bytes."""
        self._writer(
            "start", memory_rate=memory_rate, disk_rate=disk_rate, memory_set=memory_set, disk_set=disk_set
        )

    def stop_writer(self) -> None:
        """Let it rest."""
        self._writer("stop")

    def uptime_monotonic(self) -> bool:
        """True when the guest is the same boot as in `before` and its clock did not go back."""
        now = self._now()
        return (
            self._clock is not None
            and now.boot_id == self._clock.boot_id
            and now.monotonic_ns >= self._clock.monotonic_ns
        )

    def contents(self) -> dict[str, bool]:
        """What holds: the file of `before`, and disk file and memory that the writer wrote meanwhile."""
        digest = self._ask({"op": "checksum", "path": self._path})["sha256"]
        written = self._writer("verify")
        holds = {"file_before": digest == digest_of_file(self._seed, FILE_BYTES)}
        for name in ("disk", "memory"):
            target = written.get(name)
            holds[f"{name}_during"] = bool(
                target
                and target["writes"] > 0
                and target["digest"] == digest_of_region(target["seed"], target["chunks"], target["writes"])
            )
        return holds

    def _now(self) -> Clock:
        told = self._ask({"op": "uptime"})
        return Clock(int(told["monotonic_ns"]), str(told["boot_id"]))

    def _writer(self, request: str, **options: int) -> dict[str, Any]:
        return self._ask({"op": "service", "service": _WRITER, "command": request, **options})
