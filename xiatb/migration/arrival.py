"""A guest's first moments at its new host, in which its processors go before everything else there.

Under TCG QEMU has to translate every piece of code again that the guest runs, and on a small machine libvirt,
QEMU's other threads and the daemons are busy with the same migration just then. A guest on hardware of its
own would not have to wait for them: without this its processor waited 40 % of the first 40 ms after RESUME
(docs/handover.md has the figures).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from xiatb.lab.priority import favour_processors, hurry_processors

ARRIVAL_S = 0.5
"""How long after RESUME; about what it takes until all sessions have moved."""


class Arrival:
    """Of one guest, whose process libvirt's file `pids`/GUEST.pid tells."""

    def __init__(self, guest: str, pids: Path) -> None:
        self._file = pids / f"{guest}.pid"
        self._pid = 0

    def expect(self) -> None:
        """QEMU is there, the guest does not run yet. Nothing happens when there is no such process."""
        self._pid = _pid_in(self._file)
        hurry_processors(self._pid)

    def resumed(self) -> None:
        """The guest runs now; after ARRIVAL_S its processors are like others'. In an event loop."""
        asyncio.get_running_loop().call_later(ARRIVAL_S, favour_processors, self._pid)


def settle_all(pids: Path) -> None:
    """After a daemon has ended in the middle: no guest here arrives any more."""
    for file in pids.glob("*.pid"):
        favour_processors(_pid_in(file))


def _pid_in(file: Path) -> int:
    """0 when there is none, which is nobody's."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
