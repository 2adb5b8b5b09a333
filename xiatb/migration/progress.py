"""Turns libvirt's job statistics and the relays' counters into one progress event."""

from __future__ import annotations

from collections import deque
from typing import Any

from xiatb.migration.channels import RelaySet

_WINDOW = 10


class ProgressBoard:
    """Keeps what is needed between updates: the last second of byte counts, and which phase it is."""

    def __init__(self, storage: int) -> None:
        """storage: bytes of disk that are to be copied (QEMU counts the holes, too)."""
        self._storage = storage
        self.phase = "prepare"
        self.last: dict[str, Any] = {}
        """The newest event."""
        self._seen: deque[tuple[float, int]] = deque(maxlen=_WINDOW)

    def update(self, stats: dict[str, Any], relays: RelaySet, passes: int, now: float) -> dict[str, Any]:
        """The event: bytes moved, left and in all, and the rate in bytes a second over the last second.

        While storage is copied the amounts are those of the disk's allocated blocks, afterwards the memory's,
        as libvirt reports them.
        """
        moved = relays.moved("ram", "nbd")
        self._seen.append((now, moved))
        then, before = self._seen[0]
        total, left = int(stats.get("memory_total", 0)), int(stats.get("memory_remaining", 0))
        if self.phase == "storage":
            total, left = self._storage, max(0, self._storage - relays.moved("nbd"))
        self.last = {
            "event": "progress",
            "phase": self.phase,
            "pass": max(passes, int(stats.get("memory_iteration", 0))),
            "transferred": moved,
            "total": total,
            "remaining": left,
            "rate": int((moved - before) / (now - then)) if now > then else 0,
            "dirty_rate": int(stats.get("memory_dirty_rate", 0)) * int(stats.get("memory_page_size", 4096)),
            "backlog": relays.backlog(),
        }
        return self.last
