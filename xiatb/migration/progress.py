"""Turns libvirt's job statistics and the relays' counters into one progress event."""

from __future__ import annotations

from collections import deque
from typing import Any

from xiatb.migration.channels import RelaySet

_WINDOW = 10


class ProgressBoard:
    """Keeps what is needed between updates: the last second of byte counts, and which phase it is."""

    def __init__(self) -> None:
        self.phase = "prepare"
        self._seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def update(self, stats: dict[str, Any], relays: RelaySet, passes: int, now: float) -> dict[str, Any]:
        """The event: bytes moved, left and in all, and the rate in bytes a second over the last second.

        While storage is copied the amounts are the disk's, afterwards the memory's, as libvirt reports them.
        """
        moved = relays.moved("ram", "nbd")
        self._seen.append((now, moved))
        then, before = self._seen[0]
        prefix = "disk" if self.phase == "storage" else "memory"
        return {
            "event": "progress",
            "phase": self.phase,
            "pass": max(passes, int(stats.get("memory_iteration", 0))),
            "transferred": moved,
            "total": int(stats.get(f"{prefix}_total", 0)),
            "remaining": int(stats.get(f"{prefix}_remaining", 0)),
            "rate": int((moved - before) / (now - then)) if now > then else 0,
            "dirty_rate": int(stats.get("memory_dirty_rate", 0)) * int(stats.get("memory_page_size", 4096)),
            "backlog": relays.backlog(),
        }
