"""The source's state machine: from the capabilities exchange to release (diagram in
docs/protocol-migration.md).

libvirt's peer-to-peer protocol moves the guest; this machine decides when it may, and adds what libvirt
lacks: admission, one hand-over that survives crashes, routes, sessions, removal of disks. Rules:

- Before the hand-over any failure leaves the guest here: the machine waits for libvirt's result, then says
  ABORT.
- After it the guest is the destination's, until that says otherwise (sourcecore.py).
- The disks here are removed only after the destination said that the guest runs there.
"""

from __future__ import annotations

from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.sourcecore import ANSWER_S, CARRYING, SourceCore

CAPABILITIES_S = 15.0
ADMISSION_S = 30.0
COMMIT_S = 15.0
ATTACH_S = 10.0
SWITCHOVER_S = 15.0
"""Longest stop of the guest before the hand-over; a path that is dead for longer costs the migration, not
the guest. A pause of ten seconds is still lived through."""
CANCEL_S = 3.0
"""How long libvirt may take to give up in order: over a dead path its farewell would wait for a minute."""
CLEAN_S = 30.0
_DOUBT = ("handover", "postcopy", "asking")


class SourceMachine(SourceCore):
    """One migration as its source sees it.

    `request` is what will be asked of the destination. After `Finish`, `t_stop`, `t_resume`, `t_attached` and
    `t_commit` hold monotonic nanoseconds (0 when the event did not come) and `locator` the guest's new DAG.
    """

    def on_established(self, own: m.Capabilities, now: float) -> None:
        """A control session is authenticated: exchange capabilities."""
        self._send(own)
        self.lost = ""
        if self.state == "asking":
            self._step = "greet"
            self.deadline, self.missing = now + CAPABILITIES_S, "the destination's capabilities"
        else:
            self._enter("capabilities", now, CAPABILITIES_S, "the destination's capabilities")

    def on_message(self, message: m.Message, now: float) -> None:
        """A message of the destination. One that does not fit the state ends the migration as "protocol"."""
        if getattr(message, "job", self.request.job) != self.request.job:
            self._give_up("protocol", "the destination spoke of another job", now)
            return
        handler = {
            m.Capabilities: self._capabilities, m.Accept: self._accept, m.Reject: self._reject,
            m.Resumed: self._resumed, m.Attached: self._attached, m.Committed: self._committed,
            m.Abort: self._peer_aborts, m.Aborted: self._aborted, m.Outcome: self._outcome,
            m.Pages: self._pages,
        }.get(type(message))  # fmt: skip
        if handler is None:
            self._give_up("protocol", f"the destination sent {message.TYPE} to a source", now)
        elif not self.finished:
            handler(message, now)  # type: ignore[operator]

    def on_stopped(self, t_stop: int, now: float) -> None:
        """QEMU stopped the guest here for the switchover."""
        if self.state not in CARRYING or self.t_stop:
            return
        self.t_stop = t_stop
        self._detach()
        self._send_unless_lost(m.Switchover(job=self.request.job, t_stop=t_stop))
        if self.state == "transfer":
            self._enter("switchover", now, SWITCHOVER_S, "the hand-over of the stopped guest")

    def on_delegated(self, join: str, now: float) -> bool:
        """The guest has signed its JOIN for the destination; False when it is too late: it is of use only
        before the guest has stopped."""
        in_time = self.state == "transfer" and not self.t_stop
        if in_time:
            self._send_unless_lost(m.Delegation(job=self.request.job, join=join))
        return in_time

    def on_resumed_here(self, now: float) -> None:
        """libvirt let the guest run on here: the migration has failed or was cancelled after STOP."""
        if self._detached and self.state in (*CARRYING, "aborting"):
            self._detached = False
            self.t_stop = 0
            self._do(a.ReattachGuest())

    def on_transfer_done(self, ok: bool, reason: str, now: float) -> None:
        """libvirt's migration call has returned."""
        self._driving = False
        if self.finished:
            return
        if self.state in CARRYING:
            self._carried(ok, reason, now)
        elif self.state in _DOUBT and (ok or self.there):
            if not ok:
                self._do(a.EndCopy())
            self._arrived()
            self._succeeded(now)
        elif self.state in ("handover", "postcopy"):
            self._ask(reason, now)

    def on_lost(self, reason: str, now: float) -> None:
        """The control stream has ended."""
        if self.finished or self.lost:
            return
        self.lost = reason or "control stream closed"
        if self.state in CARRYING:
            self._give_up("lost", f"control stream to the destination lost: {self.lost}", now)
        elif self.state in ("handover", "commit"):
            self._ask(f"control stream to the destination lost: {self.lost}", now)
        elif self.state == "asking":
            self._pause(now)
        elif self.state == "attach":
            self._do(a.Forget())
            self._finish(True)
        elif self.state == "aborting":
            self._failed(self._reason)
        elif self.state != "postcopy":
            self._failed(f"control stream to the destination lost: {self.lost}", "lost")

    def cancel(self, reason: str, now: float, code: str = "cancelled") -> bool:
        """The user (or a time limit) wants the migration stopped; False when it is too late for that."""
        if self.finished or self.state in ("commit", "attach", "aborting", *_DOUBT):
            return False
        self._give_up(code, reason, now)
        return True

    def on_timeout(self, now: float) -> None:
        """What `missing` names did not come in time."""
        if self.state == "asking":
            self._still_asking(now)
        elif self.state in ("handover", "commit"):
            self._hang_up(f"{self.missing} did not come in time", now)
        elif self.state == "attach":
            self._release()
        elif self.state == "cancelling":
            self._do(a.CloseChannels())
        elif self.state == "aborting":
            self._failed(f"{self._reason} (and {self.missing} did not come)")
        else:
            self._give_up("timeout", f"{self.missing} did not come in time", now)

    def _capabilities(self, message: m.Capabilities, now: float) -> None:
        if self.state == "asking" and self._step == "greet":
            self._inquire(now)
        elif self.state != "capabilities":
            self._give_up("protocol", "capabilities out of turn", now)
        else:
            self.peer = message
            self._send(self.request)
            self._enter("admission", now, ADMISSION_S, "the destination's answer to the request")

    def _accept(self, message: m.Accept, now: float) -> None:
        if self.state == "asking" and self._step == "answer" and self.record == "postcopy":
            self._recovering(message, now)
        elif self.state != "admission":
            self._give_up("protocol", "accept out of turn", now)
        elif bool(message.tls) != bool(self.request.tls):
            self._give_up("protocol", "the destination does not encrypt channels as was asked", now)
        else:
            self._write("transfer")
            self._enter("transfer", now)
            self._driving = True
            self._do(a.StartTransfer(message.channels, message.tls))
            if self.request.hid:
                self._do(a.AskDelegation(message.invite, message.locator))

    def _reject(self, message: m.Reject, now: float) -> None:
        if self.state != "admission":
            self._give_up("protocol", "reject out of turn", now)
        else:
            self._finish(False, message.code, message.reason)

    def _resumed(self, message: m.Resumed, now: float) -> None:
        self.t_resume = self.t_resume or message.t_resume
        # After a hand-over this alone is proof; the answer to libvirt's Finish may have been lost.
        self.there = self.there or self.record == "handover"

    def _pages(self, message: m.Pages, now: float) -> None:
        """Digests are for the shell to compare; they do not change the state."""

    def _attached(self, message: m.Attached, now: float) -> None:
        self.t_attached = self.t_attached or message.t_attached
        self.locator = message.locator
        if self.state == "attach":
            self._release()

    def _committed(self, message: m.Committed, now: float) -> None:
        if self.state != "commit":
            self._give_up("protocol", "committed out of turn", now)
            return
        self.t_commit = message.t_commit
        self._do(a.RemoveDisks())
        if self.t_attached or not self.request.hid:
            self._release()
        else:
            self._enter("attach", now, ATTACH_S, "the guest's join at the destination")

    def _peer_aborts(self, message: m.Abort, now: float) -> None:
        self._give_up(message.code, f"destination: {message.reason}", now)

    def _aborted(self, message: m.Aborted, now: float) -> None:
        self.leftover = message.leftover
        if self.state == "aborting":
            self._failed(self._reason)

    def _carried(self, ok: bool, reason: str, now: float) -> None:
        """libvirt's result while the guest was the source's."""
        if ok or self.there:
            if not ok:
                self._do(a.EndCopy())
            self.there = True
            self._write("moved")
            self._succeeded(now)
            return
        self.on_resumed_here(now)
        if not self._code:
            self._code, self._reason = "failed", reason
        if self.lost:
            self._failed(self._reason)
            return
        self._send(m.Abort(job=self.request.job, code=self._told(), reason=self._reason[:1000]))
        self._enter("aborting", now, CLEAN_S, "the destination's word that it has cleaned up")

    def _succeeded(self, now: float) -> None:
        """The guest has gone; the destination has to confirm."""
        if self.record != "moved":
            self._write("moved")
        if self.state == "asking" and (self.lost or self._step == "answer"):
            return  # its answer is the confirmation
        self._send_unless_lost(m.Commit(job=self.request.job))
        self._enter("commit", now, COMMIT_S, "the destination's COMMITTED")
        if self.lost:
            self._ask(self.lost, now)

    def _release(self) -> None:
        self._released()
        self._finish(True)

    def _failed(self, reason: str, code: str = "") -> None:
        """The guest runs on here and the destination needs nothing of this side."""
        self._do(a.Forget())
        self._finish(False, code or self._code, reason)

    def _told(self) -> str:
        return self._code if self._code in m.ABORT_CODES else "failed"

    def _give_up(self, code: str, reason: str, now: float) -> None:
        """Stop for `reason`; while libvirt is at work, or the guest may be elsewhere, it is not over yet."""
        if self.finished:
            return
        if self.state in CARRYING:
            if self.state != "cancelling":
                self._code, self._reason = code, reason
                self._do(a.CancelTransfer())
                self._enter("cancelling", now, CANCEL_S, "libvirt's end of the migration")
        elif self.state in (*_DOUBT, "commit"):
            self._hang_up(reason, now)
        elif self.state == "attach":
            self._do(a.Forget())
            self._finish(True, code, reason)
        elif self.state != "aborting":
            self._code, self._reason = code, reason
            self._send_unless_lost(m.Abort(job=self.request.job, code=self._told(), reason=reason[:1000]))
            self._failed(reason)


__all__ = ["ANSWER_S", "SourceMachine"]
