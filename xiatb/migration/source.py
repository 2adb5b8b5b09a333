"""The source's state machine: from the capabilities exchange to release (diagram in
docs/protocol-migration.md).

libvirt's peer-to-peer protocol decides where the guest runs; this machine follows its result and adds what
libvirt lacks: admission, routes, sessions, removal of disks. Rules that it keeps:

- The disks here are removed only after COMMITTED, that is after the destination said that the guest runs
  there.
- A cancelled or broken migration waits for libvirt's result before it says ABORT: when libvirt finished after
  all, the migration is committed instead.
- Once RESUMED has come the destination owns the guest, whatever libvirt reports here.
"""

from __future__ import annotations

from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.machine import Machine

CAPABILITIES_S = 15.0
ADMISSION_S = 30.0
COMMIT_S = 15.0
ATTACH_S = 10.0
CLEAN_S = 30.0
_CARRYING = ("transfer", "switchover", "cancelling")


class SourceMachine(Machine):
    """One migration as its source sees it.

    `request` is what will be asked of the destination. After `Finish`, `t_stop`, `t_resume`, `t_attached` and
    `t_commit` hold monotonic nanoseconds (0 when the event did not come) and `locator` the guest's new DAG.
    """

    def __init__(self, request: m.Request) -> None:
        super().__init__("hello")
        self.request = request
        self.peer: m.Capabilities | None = None
        self.t_stop = self.t_resume = self.t_attached = self.t_commit = 0
        self.locator = ""
        self.leftover: tuple[str, ...] = ()
        self.lost = ""
        self._code = self._reason = ""
        self._detached = False

    def on_established(self, own: m.Capabilities, now: float) -> None:
        """The control session is authenticated: exchange capabilities."""
        self._send(own)
        self._enter("capabilities", now, CAPABILITIES_S, "the destination's capabilities")

    def on_message(self, message: m.Message, now: float) -> None:
        """A message of the destination. One that does not fit the state ends the migration as "protocol"."""
        if getattr(message, "job", self.request.job) != self.request.job:
            self._give_up("protocol", "the destination spoke of another job", now)
            return
        handler = {
            m.Capabilities: self._capabilities, m.Accept: self._accept, m.Reject: self._reject,
            m.Resumed: self._resumed, m.Attached: self._attached, m.Committed: self._committed,
            m.Abort: self._peer_aborts, m.Aborted: self._aborted,
        }.get(type(message))  # fmt: skip
        if handler is None:
            self._give_up("protocol", f"the destination sent {message.TYPE} to a source", now)
        elif not self.finished:
            handler(message, now)  # type: ignore[operator]

    def on_stopped(self, t_stop: int, now: float) -> None:
        """QEMU stopped the guest here for the switchover."""
        if self.state not in _CARRYING or self.t_stop:
            return
        self.t_stop = t_stop
        self._detached = True
        self._do(a.DetachGuest())
        self._send_unless_lost(m.Switchover(job=self.request.job, t_stop=t_stop))
        if self.state == "transfer":
            self._enter("switchover", now)

    def on_resumed_here(self, now: float) -> None:
        """libvirt let the guest run on here: the migration has failed or was cancelled after STOP."""
        if self._detached and not self.t_resume and not self.finished:
            self._detached = False
            self.t_stop = 0
            self._do(a.ReattachGuest())

    def on_transfer_done(self, ok: bool, reason: str, now: float) -> None:
        """libvirt's migration call has returned."""
        if self.finished or self.state not in _CARRYING:
            return
        if not ok and self.t_resume:
            # The answer to libvirt's Finish was lost on the way; the destination says that it runs the guest.
            self._do(a.DestroyHere())
            ok = True
        if ok:
            self._succeeded(now)
            return
        self.on_resumed_here(now)
        if not self._code:
            self._code, self._reason = "failed", reason
        if self.lost:
            self._finish(False, self._code, self._reason)
            return
        self._send(m.Abort(job=self.request.job, code=self._code, reason=self._reason[:1000]))
        self._enter("aborting", now, CLEAN_S, "the destination's word that it has cleaned up")

    def on_lost(self, reason: str, now: float) -> None:
        """The control stream has ended."""
        if self.finished or self.lost:
            return
        self.lost = reason or "control stream closed"
        if self.state in _CARRYING:
            self._give_up("lost", f"control stream to the destination lost: {self.lost}", now)
        elif self.state == "commit":
            self._finish(
                True, "lost", f"no COMMITTED from the destination, the disks here are kept: {self.lost}"
            )
        elif self.state == "attach":
            self._finish(True)
        elif self.state == "aborting":
            self._finish(False, self._code, self._reason)
        else:
            self._finish(False, "lost", f"control stream to the destination lost: {self.lost}")

    def cancel(self, reason: str, now: float, code: str = "cancelled") -> bool:
        """The user (or a time limit) wants the migration stopped; False when it is too late for that."""
        if self.finished or self.state in ("commit", "attach", "aborting"):
            return False
        self._give_up(code, reason, now)
        return True

    def on_timeout(self, now: float) -> None:
        """What `missing` names did not come in time."""
        if self.state == "attach":
            self._release()
        elif self.state == "commit":
            self._finish(
                True, "timeout", "no COMMITTED from the destination in time, the disks here are kept"
            )
        elif self.state == "aborting":
            self._finish(False, self._code, f"{self._reason} (and {self.missing} did not come)")
        else:
            self._give_up("timeout", f"{self.missing} did not come in time", now)

    def _capabilities(self, message: m.Capabilities, now: float) -> None:
        if self.state != "capabilities":
            self._give_up("protocol", "capabilities out of turn", now)
            return
        self.peer = message
        self._send(self.request)
        self._enter("admission", now, ADMISSION_S, "the destination's answer to the request")

    def _accept(self, message: m.Accept, now: float) -> None:
        if self.state != "admission":
            self._give_up("protocol", "accept out of turn", now)
            return
        self._enter("transfer", now)
        self._do(a.StartTransfer(message.channels))

    def _reject(self, message: m.Reject, now: float) -> None:
        if self.state != "admission":
            self._give_up("protocol", "reject out of turn", now)
        else:
            self._finish(False, message.code, message.reason)

    def _resumed(self, message: m.Resumed, now: float) -> None:
        if self.state in _CARRYING or self.state in ("commit", "attach"):
            self.t_resume = self.t_resume or message.t_resume

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
            self._finish(False, self._code, self._reason)

    def _succeeded(self, now: float) -> None:
        if self.lost:
            self._finish(True, "lost", "moved, but the control stream was lost: the disks here are kept")
            return
        self._send(m.Commit(job=self.request.job))
        self._enter("commit", now, COMMIT_S, "the destination's COMMITTED")

    def _release(self) -> None:
        self._send_unless_lost(m.Release(job=self.request.job))
        self._finish(True)

    def _send_unless_lost(self, message: m.Message) -> None:
        if not self.lost:
            self._send(message)

    def _give_up(self, code: str, reason: str, now: float) -> None:
        """Stop for `reason`; while libvirt is at work its result still decides."""
        if self.finished:
            return
        if self.state in _CARRYING:
            if self.state != "cancelling":
                self._code, self._reason = code, reason
                self._do(a.CancelTransfer())
                self._enter("cancelling", now)
        elif self.state in ("commit", "attach"):
            self._finish(True, code, reason)
        elif self.state != "aborting":
            told = code if code in m.ABORT_CODES else "failed"
            self._send_unless_lost(m.Abort(job=self.request.job, code=told, reason=reason[:1000]))
            self._finish(False, code, reason)
