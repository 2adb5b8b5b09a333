"""The control messages that follow the handshake, and their codec to and from JSON objects.

Every message is a frozen dataclass; a field's metadata holds its check. Unknown fields are ignored and
missing ones take their default, so that a newer peer can add fields; an unknown message type is refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from xiatb.errors import WireError
from xiatb.migration import fields as f
from xiatb.migration.parts import KINDS as KINDS
from xiatb.migration.parts import Channel as Channel
from xiatb.migration.parts import Consent as Consent
from xiatb.migration.parts import Disk as Disk
from xiatb.migration.parts import Faults as Faults
from xiatb.migration.parts import T as T
from xiatb.migration.parts import build as build
from xiatb.migration.parts import checked as _f
from xiatb.migration.parts import nested as nested

REJECT_CODES = (
    "not-a-peer",
    "busy",
    "guest-exists",
    "no-room",
    "image-missing",
    "version-mismatch",
    "disk-missing",
    "wrong-image",
    "unsupported",
    "policy",
    "consent",
    "failed",
)
ABORT_CODES = ("cancelled", "failed", "timeout", "lost", "protocol")
MODES = ("precopy", "postcopy", "hybrid")
FATES = ("here", "none", "postcopy", "lost")
"""What became of a guest at its destination: it runs there; it does not and never will; it runs there and
still needs pages of the source; it has died there after the switch to post-copy."""

class Message:
    """Base of all control messages; `TYPE` is the value of the field "t" on the wire."""

    TYPE: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class Capabilities(Message):
    """What a host is and holds. Versions are libvirt's integers (major * 1000000 + minor * 1000 + micro)."""

    TYPE: ClassVar[str] = "capabilities"
    host: str = _f(f.NAME)
    qemu: int = _f(f.number(0))
    libvirt: int = _f(f.number(0))
    machines: tuple[str, ...] = _f(f.sequence(f.text(64), 512), ())
    accel: str = _f(f.text(16), "")
    memory_free: int = _f(f.number(0), 0)
    disk_free: int = _f(f.number(0), 0)
    images: tuple[str, ...] = _f(f.sequence(f.text(128), 256), ())


@dataclass(frozen=True, kw_only=True)
class Request(Message):
    """The source asks to move a guest. Memory and sizes in bytes; `hid` may be empty for a guest without
    XIA.

    `streams` memory channels (more than one: multifd); `tls` is the SHA-256 of the certificate that the
    source shows on bulk channels, empty when they are not encrypted; `verify` asks for `pages`. `contents`
    are the SHA-256 of `files`, in their order.
    """

    TYPE: ClassVar[str] = "request"
    job: str = _f(f.JOB)
    guest: str = _f(f.NAME)
    uuid: str = _f(f.UUID)
    hid: str = _f(lambda v: v if v == "" else f.xid(v), "")
    services: tuple[str, ...] = _f(f.sequence(f.xid, 64), ())
    machine: str = _f(f.text(64), "")
    accel: str = _f(f.text(16), "")
    image: str = _f(f.text(128), "")
    memory: int = _f(f.number(0, 1 << 44))
    vcpus: int = _f(f.number(1, 4096), 1)
    port: str = _f(f.text(32), "")
    disks: tuple[Disk, ...] = _f(f.sequence(nested(Disk), 16), ())
    files: tuple[str, ...] = _f(f.sequence(f.PATH, 32), ())
    contents: tuple[str, ...] = _f(f.sequence(f.text(64, "[0-9a-f]{64}"), 32), ())
    storage: bool = _f(f.flag, False)
    mode: str = _f(f.choice(*MODES), "precopy")
    streams: int = _f(f.number(1, 16), 1)
    tls: str = _f(f.text(64, "([0-9a-f]{64})?"), "")
    verify: bool = _f(f.flag, False)
    consent: Consent | None = _f(lambda v: None if v is None else build(Consent, v), None)
    xml_digest: str = _f(f.text(64, "[0-9a-f]*"), "")

    @property
    def incremental(self) -> bool:
        """Disks are copied only down to backing files that the destination has."""
        return any(disk.backing for disk in self.disks)


@dataclass(frozen=True, kw_only=True)
class Examine(Message):
    """In place of a request: would you take this guest? Nothing is made or kept for it."""

    TYPE: ClassVar[str] = "examine"
    job: str = _f(f.JOB)
    request: Request = _f(nested(Request))


@dataclass(frozen=True, kw_only=True)
class Examined(Message):
    """The answer to `examine`: empty `code`, or the one of the reject that a request would get. The channel
    is for a probe of the path; `tls` as in `accept`. The session ends with the source's `release`."""

    TYPE: ClassVar[str] = "examined"
    job: str = _f(f.JOB)
    code: str = _f(f.choice("", *REJECT_CODES), "")
    reason: str = _f(f.WORDS, "")
    channels: tuple[Channel, ...] = _f(f.sequence(nested(Channel), 4), ())
    tls: str = _f(f.text(64, "([0-9a-f]{64})?"), "")


@dataclass(frozen=True, kw_only=True)
class Accept(Message):
    """Admission: the guest may come; one token for each channel that the source may open. `tls` is the
    SHA-256 of the destination's certificate there, empty when they are not encrypted. `invite` is the INVITE
    of the destination's node for the guest (hex), `locator` that node's address; empty when there is none."""

    TYPE: ClassVar[str] = "accept"
    job: str = _f(f.JOB)
    channels: tuple[Channel, ...] = _f(f.sequence(nested(Channel), 64))
    tls: str = _f(f.text(64, "([0-9a-f]{64})?"), "")
    invite: str = _f(f.text(1024, "([0-9a-f]{2})*"), "")
    locator: str = _f(f.text(1500), "")


@dataclass(frozen=True, kw_only=True)
class Reject(Message):
    """Admission refused, with a code for programs and a sentence for people."""

    TYPE: ClassVar[str] = "reject"
    job: str = _f(f.JOB)
    code: str = _f(f.choice(*REJECT_CODES))
    reason: str = _f(f.WORDS)


@dataclass(frozen=True, kw_only=True)
class Progress(Message):
    """How far the transfer is, every 200 ms from the source: bytes moved and left, bytes a second, pass
    number."""

    TYPE: ClassVar[str] = "progress"
    job: str = _f(f.JOB)
    phase: str = _f(f.text(32))
    passes: int = _f(f.number(0), 0)
    transferred: int = _f(f.number(0), 0)
    remaining: int = _f(f.number(0), 0)
    rate: int = _f(f.number(0), 0)


@dataclass(frozen=True, kw_only=True)
class Delegation(Message):
    """The guest's JOIN in answer to the invitation in `Accept` (hex), to be used when it has stopped. At most
    one, while the guest runs at the source; ignored at any other time."""

    TYPE: ClassVar[str] = "delegation"
    job: str = _f(f.JOB)
    join: str = _f(f.text(1024, "([0-9a-f]{2})+"))


@dataclass(frozen=True, kw_only=True)
class Switchover(Message):
    """The guest stopped at the source at `t_stop` (monotonic nanoseconds of the source's clock)."""

    TYPE: ClassVar[str] = "switchover"
    job: str = _f(f.JOB)
    t_stop: int = _f(f.number(0))


@dataclass(frozen=True, kw_only=True)
class Switched(Message):
    """Post-copy has begun: the copy at the source can never run again, and the one at the destination needs
    the source until all pages are there."""

    TYPE: ClassVar[str] = "switched"
    job: str = _f(f.JOB)
    t_stop: int = _f(f.number(0))


@dataclass(frozen=True, kw_only=True)
class Inquire(Message):
    """The source does not know what became of `guest` and asks; the destination settles it for good and
    answers `Outcome`. Allowed in place of a request in a new session, and after an accept in the old one."""

    TYPE: ClassVar[str] = "inquire"
    job: str = _f(f.JOB)
    guest: str = _f(f.NAME)
    uuid: str = _f(f.UUID)


@dataclass(frozen=True, kw_only=True)
class Outcome(Message):
    """The answer to `Inquire`: `fate` is one of FATES and, but for "postcopy", never changes again."""

    TYPE: ClassVar[str] = "outcome"
    job: str = _f(f.JOB)
    fate: str = _f(f.choice(*FATES))
    t_resume: int = _f(f.number(0), 0)
    locator: str = _f(f.text(1500), "")


@dataclass(frozen=True, kw_only=True)
class Recover(Message):
    """The source asks for fresh channels to go on with a post-copy that broke; answered by `Accept`. `tls` as
    in Request: a daemon that was started again has another certificate."""

    TYPE: ClassVar[str] = "recover"
    job: str = _f(f.JOB)
    tls: str = _f(f.text(64, "([0-9a-f]{64})?"), "")


@dataclass(frozen=True, kw_only=True)
class Pages(Message):
    """What the destination has seen of the guest's memory, once all of it has come: digests of regions by
    RAM block (pageledger.py), of the last versions if `final`; or why it has none (`off`). `cost`: processor
    time per page, in nanoseconds."""

    TYPE: ClassVar[str] = "pages"
    job: str = _f(f.JOB)
    digests: dict[str, str] = _f(f.mapping(256, f.text(128), f.text(40_000, "([0-9a-f]{16})*")), {})
    final: bool = _f(f.flag, False)
    off: str = _f(f.WORDS, "")
    cost: int = _f(f.number(0), 0)
    faults: Faults = _f(nested(Faults), Faults())


@dataclass(frozen=True, kw_only=True)
class Resumed(Message):
    """The guest runs at the destination since `t_resume` (monotonic nanoseconds of the destination's
    clock)."""

    TYPE: ClassVar[str] = "resumed"
    job: str = _f(f.JOB)
    t_resume: int = _f(f.number(0))


@dataclass(frozen=True, kw_only=True)
class Attached(Message):
    """The guest has joined at the destination: its new locator (a DAG in text form)."""

    TYPE: ClassVar[str] = "attached"
    job: str = _f(f.JOB)
    locator: str = _f(f.text(1500))
    t_attached: int = _f(f.number(0))


@dataclass(frozen=True, kw_only=True)
class Commit(Message):
    """The source's hypervisor has given the guest up: the destination owns it from here on."""

    TYPE: ClassVar[str] = "commit"
    job: str = _f(f.JOB)


@dataclass(frozen=True, kw_only=True)
class Committed(Message):
    """The destination confirms that the guest runs there; the source may drop its disk."""

    TYPE: ClassVar[str] = "committed"
    job: str = _f(f.JOB)
    t_commit: int = _f(f.number(0))


@dataclass(frozen=True, kw_only=True)
class Abort(Message):
    """Either side gives the migration up before the commit."""

    TYPE: ClassVar[str] = "abort"
    job: str = _f(f.JOB)
    code: str = _f(f.choice(*ABORT_CODES))
    reason: str = _f(f.WORDS)


@dataclass(frozen=True, kw_only=True)
class Aborted(Message):
    """The destination has cleaned up; `leftover` names what it could not remove (normally nothing)."""

    TYPE: ClassVar[str] = "aborted"
    job: str = _f(f.JOB)
    leftover: tuple[str, ...] = _f(f.sequence(f.WORDS, 32), ())


@dataclass(frozen=True, kw_only=True)
class Release(Message):
    """The source needs nothing more; both sides forget the job."""

    TYPE: ClassVar[str] = "release"
    job: str = _f(f.JOB)


TYPES: dict[str, type[Message]] = {
    cls.TYPE: cls
    for cls in (
        Capabilities,
        Request,
        Examine,
        Examined,
        Accept,
        Reject,
        Progress,
        Delegation,
        Switchover,
        Switched,
        Inquire,
        Outcome,
        Recover,
        Pages,
        Resumed,
        Attached,
        Commit,
        Committed,
        Abort,
        Aborted,
        Release,
    )
}


def encode(message: Message) -> dict[str, Any]:
    """The JSON object of `message`, with its type under "t"."""
    return {"t": message.TYPE, **dataclasses.asdict(message)}  # type: ignore[call-overload]


def decode(value: dict[str, Any]) -> Message:
    """The message in a decoded JSON object; raises `WireError` for an unknown type or a bad field."""
    kind = value.get("t")
    cls = TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise WireError(f"unknown control message {str(kind)[:40]!r}")
    return build(cls, value)
