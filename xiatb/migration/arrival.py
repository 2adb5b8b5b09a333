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
from xiatb.migration.fence import Fence

ARRIVAL_S = 0.5
"""How long after RESUME; about what it takes until all sessions have moved."""


def expect(guest: str, pids: Path) -> None:
    """QEMU is there, the guest does not run yet. `pids`: where libvirt writes GUEST.pid; nothing happens when
    there is no such process."""
    hurry_processors(_process_of(guest, pids))


def settle(guest: str, pids: Path) -> None:
    """Its processors are like others' from now on."""
    favour_processors(_process_of(guest, pids))


def settle_soon(guest: str, pids: Path) -> None:
    """The guest runs now: `settle` after ARRIVAL_S. In an event loop."""
    asyncio.get_running_loop().call_later(ARRIVAL_S, settle, guest, pids)


def settle_all(pids: Path) -> None:
    """After a daemon has ended in the middle: no guest here arrives any more."""
    for file in pids.glob("*.pid"):
        settle(file.stem, pids)


def _process_of(guest: str, pids: Path) -> int:
    """0 when there is none, which is nobody's."""
    return Fence.of(guest, pids).process[0]
