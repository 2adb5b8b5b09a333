"""The fault table: for each fault in each phase, where the guest is afterwards and what its user is told.

The simulated migrations of the tests, the runner on a real lab (`scripts/faults`) and the table in
docs/reliability.md all come from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PHASES: Final[dict[str, str]] = {
    "storage": "the disk is being copied",
    "first": "first pass over memory",
    "later": "a later pass",
    "switchover": "the guest is stopped; the destination has not got libvirt's *Finish*",
    "handover": "the destination has started it; its source does not know yet",
    "postcopy": "it runs at the destination, which still fetches pages",
}
"""The switchover has two parts, because the hand-over divides it. The line is the arrival of *Finish* at the
destination, which lies between the source's journal entry and the start of the guest there."""

FAULTS: Final[dict[str, str]] = {
    "cut": "the path between the hosts is cut, for longer than any stream lives (60 s)",
    "stall": "the path is dead for 10 s",
    "loss": "30 % of all packets are lost",
    "destination-daemon": "the destination's migration daemon is killed (the lab starts it again)",
    "source-daemon": "the source's migration daemon is killed (the lab starts it again)",
    "destination-qemu": "the guest's QEMU at the destination is killed",
    "destination-libvirtd": "the destination's libvirtd is killed (the lab starts it again)",
    "disk-full": "the destination's file system is full",
    "out-of-memory": "the destination has no memory left: its kernel ends QEMU",
    "wrong-image": "the destination has another image under the same name",
    "cancel": "the user cancels",
}

HERE, THERE, PAUSED, LOST = "here", "there", "paused", "lost"


@dataclass(frozen=True)
class Outcome:
    """`ends`: the guest runs HERE (at its source, as before), THERE, is PAUSED there until there is room, or
    is LOST (it ran there and died). `codes`: what the migration may end with, "" for moved."""

    ends: str
    codes: tuple[str, ...] = ("",)

    @property
    def exit_codes(self) -> tuple[int, ...]:
        """Of `xiatb migrate`."""
        return tuple(sorted({0 if code == "" else 130 if code == "cancelled" else 1 for code in self.codes}))


_MOVED = Outcome(THERE)
_BROKEN = Outcome(HERE, ("failed", "lost", "timeout"))
_CANCELLED = Outcome(HERE, ("cancelled",))
_DIED = Outcome(LOST, ("guest-lost",))
_FULL = Outcome(PAUSED)


def _row(*outcomes: Outcome) -> dict[str, Outcome]:
    return dict(zip(PHASES, outcomes, strict=True))


TABLE: Final[dict[str, dict[str, Outcome]]] = {
    "cut": _row(_BROKEN, _BROKEN, _BROKEN, _BROKEN, _MOVED, _MOVED),
    "stall": _row(_MOVED, _MOVED, _MOVED, _MOVED, _MOVED, _MOVED),
    "loss": _row(_MOVED, _MOVED, _MOVED, _MOVED, _MOVED, _MOVED),
    "destination-daemon": _row(_BROKEN, _BROKEN, _BROKEN, _BROKEN, _MOVED, _MOVED),
    "source-daemon": _row(_BROKEN, _BROKEN, _BROKEN, _BROKEN, _MOVED, _MOVED),
    "destination-qemu": _row(_BROKEN, _BROKEN, _BROKEN, _BROKEN, _DIED, _DIED),
    "destination-libvirtd": _row(_BROKEN, _BROKEN, _BROKEN, _BROKEN, _MOVED, _MOVED),
    "disk-full": _row(_BROKEN, _BROKEN, _BROKEN, _FULL, _FULL, _FULL),
    "out-of-memory": _row(_BROKEN, _BROKEN, _BROKEN, _BROKEN, _DIED, _DIED),
    "wrong-image": _row(Outcome(HERE, ("wrong-image",)), _MOVED, _MOVED, _MOVED, _MOVED, _MOVED),
    "cancel": _row(_CANCELLED, _CANCELLED, _CANCELLED, _CANCELLED, _MOVED, _MOVED),
}

BEFORE: Final = frozenset((("wrong-image", "storage"),))
"""Struck before the migration is asked for: an image is looked at once, at admission."""

SIMULATED: Final[frozenset[tuple[str, str]]] = frozenset()
"""Cells that have not been seen with a real guest as the table says; all are in the simulated tests."""

_WORDS: Final = {
    HERE: "stays", THERE: "moves", PAUSED: "moves, waits for room", LOST: "lost",
}  # fmt: skip


def cells() -> list[tuple[str, str, Outcome]]:
    """(fault, phase, outcome) of the whole table, in its order."""
    return [(fault, phase, outcome) for fault, row in TABLE.items() for phase, outcome in row.items()]


def page() -> str:
    """The table as Markdown. A cell: where the guest is, the exit code; asterisk: seen with a real guest."""
    lines = ["| fault | " + " | ".join(PHASES) + " |", "|---" * (len(PHASES) + 1) + "|"]
    for fault, row in TABLE.items():
        shown = []
        for phase, outcome in row.items():
            code = "/".join(map(str, outcome.exit_codes))
            shown.append(f"{_WORDS[outcome.ends]} ({code})" + ("" if (fault, phase) in SIMULATED else " *"))
        lines.append(f"| {fault} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"
