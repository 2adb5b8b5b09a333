"""What the user of a migration that did not take place is told: where the guest is, and what to do next.

One entry for each code of messages.REJECT_CODES and ABORT_CODES and for the codes that only users see.
docs/reliability.md shows them.
"""

from __future__ import annotations

from typing import Final

AGAIN: Final = "then migrate again"
_LOGS: Final = "see migrated.log of {here} and {there} in the lab's nodes/ directory, " + AGAIN
NEXT: Final[dict[str, str]] = {
    "cancelled": "nothing is left of it on {there}; migrate again whenever you like",
    "failed": "the message is the hypervisor's; " + _LOGS,
    "timeout": "the path to {there} is dead or slow: xiatb ping {here} {there}, xiatb link show; " + AGAIN,
    "time-limit": "give it more time (--timeout), or let it end: --timeout-action postcopy or force",
    "lost": "is the path to {there} up (xiatb link show) and its daemon alive (xiatb status)? " + AGAIN,
    "protocol": "the daemons do not understand each other: a fault of xiatb; " + _LOGS,
    "corrupted": "memory did not arrive as it was sent: a fault of the path or of xiatb; " + _LOGS,
    "busy": "wait for the migration under way to end (xiatb status), " + AGAIN,
    "guest-exists": "another guest of that name is on {there}: remove it there, " + AGAIN,
    "no-room": "free memory or disk space on {there}, or choose another host",
    "image-missing": "copy the guest's kernel and image to {there}, or choose another host",
    "wrong-image": "put the right image on {there}, or move the disk with --with-storage if it is the disk",
    "version-mismatch": "choose a host whose QEMU is as new as that of {here}",
    "disk-missing": "add --with-storage to move the guest's disk too; if it is there already, remove it",
    "unsupported": "the guest's own disks move with it, those that all hosts reach stay (--storage none)",
    "policy": "see the migration policy that the lab was started with",
    "consent": "the guest itself must agree: is its agent alive, and does it mean {there}?",
    "not-a-peer": "{there} is no hypervisor host of this lab",
    "not-running": "start the guest first: xiatb exec {here} -- virsh start {guest}",
}
LOST: Final = (
    "{guest} runs nowhere: it died on {there} after it had been handed over. All that it wrote is in its "
    "disk there; start it anew: xiatb exec {there} -- virsh start {guest}"
)
KEPT: Final = (
    "{guest} runs nowhere: the path broke while it was being switched to post-copy, before {there} had all "
    "that it needs to run. Its disk is whole and was kept on {here}: define the guest anew there and start it"
)


TAKEN_DOWN: Final = "the lab was taken down"
"""Why a migration that was cancelled by `xiatb down` did not take place."""
DOWN: Final = "{guest} ended with its lab {lab}: bring that up again (xiatb up), " + AGAIN


def advice(code: str, guest: str, here: str, there: str, *, kept: bool = False, down: str = "") -> str:
    """One or two sentences for the user of a migration of `guest` from `here` to `there` that ended with
    `code`; `kept`: its disk is still `here`; `down`: the lab that was taken down meanwhile."""
    if down:
        return DOWN.format(guest=guest, lab=down)
    if code == "guest-lost":
        return (KEPT if kept else LOST).format(guest=guest, here=here, there=there)
    where = "" if code == "not-running" else f"{guest} runs on {here} as before; "
    told = NEXT.get(code, NEXT["failed"]).format(guest=guest, here=here, there=there)
    return where + told
