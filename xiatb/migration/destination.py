"""The destination's state machine: admission, arrival, commit or clean-up, and the last word on the guest.

Rules that it keeps: a running copy is never ended; disks are removed only when no copy runs here; once a fate
is in the journal it is final, and is told to a source that asks; after the switch to post-copy the guest
stays, whatever happens to the control stream.
"""

from __future__ import annotations

import dataclasses
from typing import Self

from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.machine import Machine

REQUEST_S = 30.0
RELEASE_S = 30.0
_ARRIVING = ("transfer", "switchover")


class DestinationMachine(Machine):
    """One migration as its destination sees it; made when a control session is established.

    A session that begins with `inquire` is about a job of an earlier session: `Consult` settles that one.
    `fate` is "" until what becomes of the guest here is final.
    """

    def __init__(self) -> None:
        super().__init__("hello")
        self.peer: m.Capabilities | None = None
        self.request: m.Request | None = None
        self.job = ""
        self.fate = ""
        self.t_stop = self.t_resume = 0
        self.locator = ""
        self._code = self._reason = ""
        self._lost = False
        self._inquired = self._whole = self._gone = False

    @classmethod
    def restore(cls, request: m.Request) -> Self:
        """The machine of a guest in post-copy whose daemon has died; it waits for its source."""
        machine = cls()
        machine.request, machine.job = request, request.job
        machine.state = "postcopy"
        machine._lost = True
        return machine

    def on_established(self, own: m.Capabilities, now: float) -> None:
        """The control session is authenticated: tell what this host is."""
        self._send(own)
        self._enter("request", now, REQUEST_S, "the source's request")

    def on_message(self, message: m.Message, now: float) -> None:
        """A message of the source; one that does not fit ends the migration as "protocol"."""
        if self.finished:
            return
        job = getattr(message, "job", None)
        if self.job and job is not None and job != self.job:
            self._give_up("protocol", "the source spoke of another job", now)
            return
        handler = {
            m.Capabilities: self._capabilities, m.Request: self._requested, m.Progress: self._progress,
            m.Switchover: self._switchover, m.Switched: self._switched, m.Commit: self._commit,
            m.Abort: self._source_aborts, m.Release: self._release, m.Inquire: self._inquire,
            m.Recover: self._recover, m.Delegation: self._delegated, m.Examine: self._examine,
        }.get(type(message))  # fmt: skip
        if handler is None:
            self._give_up("protocol", f"the source sent {message.TYPE} to a destination", now)
        else:
            handler(message, now)  # type: ignore[operator]

    def on_prepared(
        self, channels: tuple[m.Channel, ...], code: str, reason: str, now: float, tls: str = "",
        offer: tuple[str, str] = ("", ""),
    ) -> None:  # fmt: skip
        """The shell has made room (empty `code`) or says why not; `tls` and `offer` (invite, locator) as in
        Accept."""
        if self.state == "cancelled-early" and code:
            self._aborted(())
        elif self.state == "cancelled-early":
            self._clean(now)
        elif self.state == "preparing":
            if code:
                self._send(m.Reject(job=self.job, code=code, reason=reason[:1000]))
                self._do(a.Forget())
                self._finish(False, code, reason)
                return
            invite, locator = offer
            self._send(
                m.Accept(job=self.job, channels=channels, tls=tls, invite=invite, locator=locator[:1500])
            )
            self._enter("transfer", now)

    def on_examined(
        self, channels: tuple[m.Channel, ...], code: str, reason: str, now: float, tls: str = ""
    ) -> None:
        """`Examine` is done; as in `on_prepared`."""
        if self.state == "examining":
            self._send(m.Examined(job=self.job, code=code, reason=reason[:1000], channels=channels, tls=tls))
            self._enter("examined", now, RELEASE_S, "the source's release")

    def on_resumed(self, t_resume: int, now: float) -> None:
        """The guest runs here."""
        if self.t_resume or self.request is None or self.finished:
            return
        self.t_resume = t_resume
        if self.state in (*_ARRIVING, "postcopy", "committed"):
            self._invite()
            self._send_unless_lost(m.Resumed(job=self.job, t_resume=t_resume))
        if self.state in _ARRIVING:
            self._do(a.Record("arrived"))  # its death is not "none" any more, whoever dies with it
            self._enter("running", now)

    def on_joined(self, locator: str, t_attached: int, now: float) -> None:
        """The guest has joined this host's AD."""
        if not self.locator and self.state in ("running", "postcopy", "committed", "settled"):
            self.locator = locator
            if self.state != "settled":
                self._send_unless_lost(
                    m.Attached(job=self.job, locator=locator[:1500], t_attached=t_attached)
                )

    def on_cleaned(self, fate: str, leftover: tuple[str, ...], now: float) -> None:
        """Clean-up has ended. "here": a running copy was found and kept; "postcopy": the copy waits for pages
        of the source and was kept; "none": no copy will ever run here."""
        if self.state != "cleaning":
            return
        if fate == "postcopy":
            self._do(a.Record(fate))
            self._enter("postcopy", now)
            if self._whole:
                self._ended("here")
            if self._inquired:
                self._tell()
            return
        if fate == "none" and self.t_resume:
            fate = "lost"  # it ran here and has died: what it wrote meanwhile is not at the source
        self._settle(fate)
        if self._inquired:
            self._answer(now)
        elif fate == "here":
            self._finish(True, "lost", "the guest runs here; the source did not confirm the commit")
        elif self._code == "lost" or self._lost:
            self._finish(False, self._code, self._reason)
        else:
            self._aborted(leftover)

    def on_consulted(self, fate: str, t_resume: int, locator: str, now: float) -> None:
        """What became of the job that the source has asked for; its fate is in the journal."""
        if self.state == "consulting":
            self.fate, self.t_resume, self.locator = fate, t_resume, locator
            self._answer(now)

    def on_relinked(self, now: float) -> None:
        """A new session of the source has asked for this post-copy: go on in it."""
        self._lost = False
        self._tell()

    def on_granted(self, channels: tuple[m.Channel, ...], now: float, tls: str = "") -> None:
        """`Regrant` is done."""
        if self.state == "postcopy":
            self._send_unless_lost(m.Accept(job=self.job, channels=channels, tls=tls))

    def on_pages_complete(self, now: float) -> None:
        """All pages of a post-copy are here: the source is needed no more."""
        self._whole = True
        self._ended("here")

    def on_guest_gone(self, now: float) -> None:
        """The guest has died here: during post-copy, or when it had just begun to run."""
        self._gone = True
        self._ended("lost")

    def on_lost(self, reason: str, now: float) -> None:
        """The control stream has ended."""
        if self.finished or self._lost:
            return
        self._lost = True
        if self.state in ("committed", "settled"):
            self._finish(self.fate == "here", "" if self.fate == "here" else "lost", reason)
        elif self.state == "preparing":
            self._code, self._reason = "lost", reason
            self._enter("cancelled-early", now)
        elif self.state in (*_ARRIVING, "running"):
            self._code, self._reason = "lost", f"control stream to the source lost: {reason}"
            self._clean(now)
        elif self.state == "postcopy" and self.fate:
            self._finish(self.fate == "here", "lost", reason)
        elif self.state not in ("cleaning", "cancelled-early", "postcopy"):
            self._finish(False, "lost", reason)

    def on_transfer_failed(self, reason: str, now: float) -> None:
        """Something broke here (a relay, QEMU): ask the source to stop. Its answer decides."""
        if self.state in _ARRIVING and not self._code:
            self._code, self._reason = "failed", reason
            self._send_unless_lost(m.Abort(job=self.job, code="failed", reason=reason[:1000]))

    def on_timeout(self, now: float) -> None:
        """What `missing` names did not come in time."""
        if self.state == "settled":
            self._finish(self.fate == "here", "timeout", f"{self.missing} did not come in time")
        else:
            self._give_up("timeout", f"{self.missing} did not come in time", now)

    def _capabilities(self, message: m.Capabilities, now: float) -> None:
        if self.state != "request" or self.peer is not None:
            self._give_up("protocol", "capabilities out of turn", now)
            return
        self.peer = message

    def _requested(self, message: m.Request, now: float) -> None:
        if self.state != "request" or self.peer is None:
            self._give_up("protocol", "request out of turn", now)
            return
        self.request, self.job = message, message.job
        self._enter("preparing", now)
        self._do(a.Prepare(message))

    def _examine(self, message: m.Examine, now: float) -> None:
        if self.state != "request" or self.peer is None:
            self._give_up("protocol", "examine out of turn", now)
            return
        self.job = message.job
        self._enter("examining", now)
        self._do(a.Examine(message.request))

    def _progress(self, message: m.Progress, now: float) -> None:
        """Progress is for the shell's display and log; it does not change the state."""

    def _switchover(self, message: m.Switchover, now: float) -> None:
        if self.state == "transfer":
            self.t_stop = message.t_stop
            self._enter("switchover", now)
            # INVITEs are retried on a short timer and the guest's tap keeps frames while the guest is
            # stopped: one is already waiting in its queue when the guest starts to run.
            self._invite()

    def _delegated(self, message: m.Delegation, now: float) -> None:
        if self.state == "transfer":
            self._do(a.HoldDelegation(message.join))

    def _switched(self, message: m.Switched, now: float) -> None:
        self.t_stop = self.t_stop or message.t_stop
        self.on_switched(now)

    def on_switched(self, now: float) -> None:
        """QEMU here has switched to post-copy."""
        if self.state in (*_ARRIVING, "running"):
            self._do(a.Record("postcopy"))
            self._enter("postcopy", now)
            if not self.t_resume:
                self._invite()
            if self._whole:
                self._ended("here")

    def _commit(self, message: m.Commit, now: float) -> None:
        here = self.state in ("settled", "postcopy") and self.fate in ("", "here")
        if self.state == "running" and self._gone:  # it has died since the source was told that it runs
            self._settle("lost")
            self._answer(now)
        elif here or self.state in (*_ARRIVING, "running"):
            self._settle("here")
            self._enter("committed", now)
            self._send_unless_lost(m.Committed(job=message.job, t_commit=int(now * 1e9)))
        elif self.state == "postcopy":
            self._tell()
        elif self.state != "cleaning":
            self._give_up("protocol", "commit out of turn", now)

    def _inquire(self, message: m.Inquire, now: float) -> None:
        self._inquired = True
        if self.state == "request" and self.peer is not None:
            self.job = message.job
            self._enter("consulting", now)
            self._do(a.Consult(message.job, message.guest, message.uuid))
        elif self.state in _ARRIVING:
            self._clean(now)
        elif self.state == "running":
            self._settle("lost" if self._gone else "here")
            self._answer(now)
        elif self.state in ("committed", "settled"):
            self._answer(now)
        elif self.state == "postcopy":
            self._tell()
        elif self.state not in ("cleaning", "consulting"):
            self._give_up("protocol", "inquire out of turn", now)

    def _recover(self, message: m.Recover, now: float) -> None:
        request = self.request
        if self.state == "postcopy" and not self.fate and request and bool(message.tls) == bool(request.tls):
            self.request = dataclasses.replace(request, tls=message.tls)
            self._do(a.Regrant())
        else:
            self._give_up("protocol", "recover out of turn", now)

    def _source_aborts(self, message: m.Abort, now: float) -> None:
        if self.state == "postcopy" and not self.fate and message.code == "lost":
            self._settle("lost")
            self._do(a.EndIncoming())
            self._tell()
            return
        if self.state in ("committed", "postcopy") or (self.state == "settled" and self.fate != "none"):
            return  # out of order, and the guest is here
        self._code, self._reason = message.code, f"source: {message.reason}"
        if self.state in (*_ARRIVING, "running"):
            self._clean(now)
        elif self.state == "preparing":
            self._enter("cancelled-early", now)
        elif self.state == "settled":
            self._aborted(())
        elif self.state == "request":
            self._finish(False, message.code, self._reason)

    def _release(self, message: m.Release, now: float) -> None:
        if self.state == "examined":
            self._finish(True)
        elif self.state in ("committed", "settled") or (self.state == "postcopy" and self.fate):
            self._do(a.Forget())
            self._finish(self.fate == "here", "" if self.fate == "here" else "lost", self._reason)
        else:
            self._give_up("protocol", "release out of turn", now)

    def _ended(self, fate: str) -> None:
        """A post-copy has ended, one way or the other."""
        if self.state == "postcopy" and not self.fate:
            self._settle(fate)
            if self._lost:
                self._finish(fate == "here", "" if fate == "here" else "guest-lost")

    def _settle(self, fate: str) -> None:
        """What becomes of the guest here is final; the journal says so before anybody is told."""
        if self.fate != fate:
            self.fate = fate
            self._do(a.Record(fate))

    def _tell(self) -> None:
        self._send_unless_lost(
            m.Outcome(job=self.job, fate=self.fate or "postcopy", t_resume=self.t_resume,
                      locator=self.locator[:1500])
        )  # fmt: skip

    def _answer(self, now: float) -> None:
        if self.state != "settled":
            self._enter("settled", now, RELEASE_S, "the source's release")
        self._tell()
        if self._lost:
            self._finish(self.fate == "here", "lost", self._reason)

    def _aborted(self, leftover: tuple[str, ...]) -> None:
        self._send_unless_lost(m.Aborted(job=self.job, leftover=leftover))
        self._do(a.Forget())
        self._finish(False, self._code, self._reason)

    def _invite(self) -> None:
        if self.request is not None and self.request.hid:
            self._do(a.ExpectGuest())

    def _clean(self, now: float) -> None:
        self._enter("cleaning", now)
        self._do(a.Clean())

    def _send_unless_lost(self, message: m.Message) -> None:
        if not self._lost:
            self._send(message)

    def _give_up(self, code: str, reason: str, now: float) -> None:
        """A fault of the peer: say so, and go on as if the stream were lost."""
        if self.finished:
            return
        if self.request is not None and self.state != "postcopy":
            self._code, self._reason = code, reason
            self._send_unless_lost(m.Abort(job=self.job, code=code, reason=reason[:1000]))
        if self.state in (*_ARRIVING, "running"):
            self._clean(now)
        elif self.state == "preparing":
            self._enter("cancelled-early", now)
        elif self.state in ("committed", "settled"):
            self._finish(self.fate == "here", code, reason)
        elif self.state not in ("cleaning", "cancelled-early", "postcopy"):
            self._finish(False, code, reason)
