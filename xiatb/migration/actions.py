"""What the state machines ask their shell to do; plain values, so that tests can look at them."""

from __future__ import annotations

from dataclasses import dataclass

from xiatb.migration.messages import Channel, Message, Request


class Action:
    """Base of all actions."""


@dataclass(frozen=True)
class Send(Action):
    """Send `message` to the peer on the control stream."""

    message: Message


@dataclass(frozen=True)
class Prepare(Action):
    """Destination: check room and versions, make the disks; answer with `on_prepared`."""

    request: Request


@dataclass(frozen=True)
class StartTransfer(Action):
    """Source: open the local sockets and start libvirt's migration; answer with `on_transfer_done`."""

    channels: tuple[Channel, ...]


@dataclass(frozen=True)
class CancelTransfer(Action):
    """Source: abort libvirt's migration job; the answer is still `on_transfer_done`."""


@dataclass(frozen=True)
class DetachGuest(Action):
    """Source: the guest is stopped here, withdraw its routes."""


@dataclass(frozen=True)
class ReattachGuest(Action):
    """Source: the guest runs here again, invite it to join again."""


@dataclass(frozen=True)
class ExpectGuest(Action):
    """Destination: invite the guest to join; answer with `on_joined`."""


@dataclass(frozen=True)
class DestroyHere(Action):
    """Source: the destination is known to run the guest, end the copy that libvirt resumed here."""


@dataclass(frozen=True)
class RemoveDisks(Action):
    """Source: the guest has gone for good, delete its disks here."""


@dataclass(frozen=True)
class Clean(Action):
    """Destination: close the channels, wait for the incoming guest to end, remove its disks; then
    `on_cleaned`.

    With `destroy` a copy that already runs here is ended too (the source says that it runs the guest).
    Without it a running copy is kept, and so are its disks.
    """

    destroy: bool


@dataclass(frozen=True)
class Phase(Action):
    """A new phase begins; for timestamps and the user's progress display."""

    name: str


@dataclass(frozen=True)
class Finish(Action):
    """The job is over. `code` is "" for success, else a code of messages.ABORT_CODES or REJECT_CODES."""

    ok: bool
    code: str = ""
    reason: str = ""
