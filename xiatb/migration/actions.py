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
class Examine(Action):
    """Destination: look whether this guest could come, without making anything; answer with
    `on_examined`."""

    request: Request


@dataclass(frozen=True)
class StartTransfer(Action):
    """Source: open the local sockets and start libvirt's migration; answer with `on_transfer_done`. `tls`:
    the certificate's hash that the destination must show on the channels."""

    channels: tuple[Channel, ...]
    tls: str = ""


@dataclass(frozen=True)
class CancelTransfer(Action):
    """Source: abort libvirt's migration job; the answer is still `on_transfer_done`."""


@dataclass(frozen=True)
class Record(Action):
    """Write `state` to the journal on disk, before any later action: what a daemon that is started again
    must know. Source: "transfer", "handover", "postcopy", "moved". Destination: "prepared", "arrived" (it has
    run here, the commit is not there yet), "postcopy", or a fate of messages.FATES."""

    state: str


@dataclass(frozen=True)
class Forget(Action):
    """Drop the job's journal entry: nobody will ask for it any more."""


@dataclass(frozen=True)
class Freeze(Action):
    """Source: make it impossible that the stopped guest runs here, even if this daemon dies (fence.py).

    When that fails, `on_not_frozen` must be called before anything else.
    """


@dataclass(frozen=True)
class Thaw(Action):
    """Source: undo `Freeze`; the hypervisor may end the guest here or let it run on, as it sees fit."""


@dataclass(frozen=True)
class EndCopy(Action):
    """Source: the destination runs the guest; end the copy that is left here and forget its definition."""


@dataclass(frozen=True)
class EndIncoming(Action):
    """Destination: pages that the guest here needs are lost with its source; end it. Its disks stay."""


@dataclass(frozen=True)
class CloseChannels(Action):
    """Source: close the local ends of all channels, so that the hypervisor's migration call fails."""


@dataclass(frozen=True)
class Redial(Action):
    """Source: open a new control session; answer with `on_established` or `on_dial_failed`."""


@dataclass(frozen=True)
class Hangup(Action):
    """Source: end the control session; nothing more is heard from it."""


@dataclass(frozen=True)
class RunHere(Action):
    """Source: the destination never runs the guest; see to it that it runs here and invite it to join."""


@dataclass(frozen=True)
class StartPostcopy(Action):
    """Source: ask the hypervisor to switch to post-copy; answer with `on_switched` when it has."""


@dataclass(frozen=True)
class RecoverTransfer(Action):
    """Source: go on with a broken post-copy over fresh channels; answer with `on_transfer_done`."""

    channels: tuple[Channel, ...]
    tls: str = ""


@dataclass(frozen=True)
class Consult(Action):
    """Destination: settle what became of a job of an earlier session; answer with `on_consulted`."""

    job: str
    guest: str
    uuid: str


@dataclass(frozen=True)
class Regrant(Action):
    """Destination: grant fresh channels to the job; answer with `on_granted`."""


@dataclass(frozen=True)
class AskDelegation(Action):
    """Source: have the guest answer the destination's `invite` in advance, with `on_delegated`; remember
    `locator`, where its packets are sent on to after `DetachGuest`."""

    invite: str
    locator: str


@dataclass(frozen=True)
class HoldDelegation(Action):
    """Destination: keep the guest's signed JOIN for `ExpectGuest`."""

    join: str


@dataclass(frozen=True)
class DetachGuest(Action):
    """Source: the guest is stopped here; send its packets on to where it goes, or withdraw its routes."""


@dataclass(frozen=True)
class ReattachGuest(Action):
    """Source: the guest runs here again, invite it to join again."""


@dataclass(frozen=True)
class ExpectGuest(Action):
    """Destination: attach the guest by its delegation, or invite it to join; answer with `on_joined`. Asked
    for when the guest has stopped and again when it runs here."""


@dataclass(frozen=True)
class RemoveDisks(Action):
    """Source: the guest has gone for good, delete its disks here."""


@dataclass(frozen=True)
class Clean(Action):
    """Destination: close the channels, wait until the incoming guest has ended or runs; unless it runs,
    remove its disks; then `on_cleaned`. A running copy is never ended."""


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
