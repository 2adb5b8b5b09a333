"""The destination's state machine: admission, arrival, commit or clean-up.

Rules that it keeps: disks are removed only when no copy of the guest runs here; a running copy is ended
only when the source says ABORT, that is when the source runs the guest; after COMMIT nothing is ever
removed.
"""

from __future__ import annotations

from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.machine import Machine

REQUEST_S = 30.0
TRANSFER_START_S = 60.0


class DestinationMachine(Machine):
    """One migration as its destination sees it; made when a control session is established."""

    def __init__(self) -> None:
        super().__init__("hello")
        self.peer: m.Capabilities | None = None
        self.request: m.Request | None = None
        self.t_stop = self.t_resume = 0
        self.locator = ""
        self._code = self._reason = ""
        self._lost = False

    def on_established(self, own: m.Capabilities, now: float) -> None:
        """The control session is authenticated: tell what this host is."""
        self._send(own)
        self._enter("request", now, REQUEST_S, "the source's request")

    def on_message(self, message: m.Message, now: float) -> None:
        """A message of the source; one that does not fit ends the migration as "protocol"."""
        if self.finished:
            return
        job = getattr(message, "job", None)
        if self.request is not None and job is not None and job != self.request.job:
            self._give_up("protocol", "the source spoke of another job", now)
            return
        handler = {
            m.Capabilities: self._capabilities, m.Request: self._requested, m.Progress: self._progress,
            m.Switchover: self._switchover, m.Commit: self._commit, m.Abort: self._source_aborts,
            m.Release: self._release,
        }.get(type(message))  # fmt: skip
        if handler is None:
            self._give_up("protocol", f"the source sent {message.TYPE} to a destination", now)
        else:
            handler(message, now)  # type: ignore[operator]

    def on_prepared(self, channels: tuple[m.Channel, ...], code: str, reason: str, now: float) -> None:
        """The shell has made room (empty `code`) or says why not."""
        if self.state == "cancelled-early":
            self._clean(destroy=False, now=now)
        elif self.state == "preparing" and self.request is not None:
            if code:
                self._send(m.Reject(job=self.request.job, code=code, reason=reason[:1000]))
                self._finish(False, code, reason)
                return
            self._send(m.Accept(job=self.request.job, channels=channels))
            self._enter("transfer", now)

    def on_resumed(self, t_resume: int, now: float) -> None:
        """The guest runs here."""
        if self.t_resume or self.request is None or self.state not in ("transfer", "switchover", "committed"):
            return
        self.t_resume = t_resume
        self._invite()
        self._send_unless_lost(m.Resumed(job=self.request.job, t_resume=t_resume))
        if self.state != "committed":
            self._enter("running", now)

    def on_joined(self, locator: str, t_attached: int, now: float) -> None:
        """The guest has joined this host's AD."""
        if self.request is not None and not self.locator and self.state in ("running", "committed"):
            self.locator = locator
            self._send_unless_lost(
                m.Attached(job=self.request.job, locator=locator[:1500], t_attached=t_attached)
            )

    def on_cleaned(self, guest_here: bool, leftover: tuple[str, ...], now: float) -> None:
        """Clean-up has ended; `guest_here` when a running copy was found and kept."""
        if self.state != "cleaning" or self.request is None:
            return
        if guest_here:
            self._finish(True, "lost", "the guest runs here; the source did not confirm the commit")
            return
        self._send_unless_lost(m.Aborted(job=self.request.job, leftover=leftover))
        self._finish(False, self._code, self._reason)

    def on_lost(self, reason: str, now: float) -> None:
        """The control stream has ended."""
        if self.finished or self._lost:
            return
        self._lost = True
        if self.state == "committed":
            self._finish(True)
        elif self.state == "preparing":
            self._code, self._reason = "lost", reason
            self._enter("cancelled-early", now)
        elif self.state in ("transfer", "switchover", "running"):
            self._code, self._reason = "lost", f"control stream to the source lost: {reason}"
            self._clean(destroy=False, now=now)
        elif self.state not in ("cleaning", "cancelled-early"):
            self._finish(False, "lost", reason)

    def on_transfer_failed(self, reason: str, now: float) -> None:
        """Something broke here (a relay, QEMU): ask the source to stop. Its answer, ABORT or COMMIT,
        decides."""
        if self.state in ("transfer", "switchover") and self.request is not None and not self._code:
            self._code, self._reason = "failed", reason
            self._send_unless_lost(m.Abort(job=self.request.job, code="failed", reason=reason[:1000]))

    def on_timeout(self, now: float) -> None:
        """What `missing` names did not come in time."""
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
        self.request = message
        self._enter("preparing", now)
        self._do(a.Prepare(message))

    def _progress(self, message: m.Progress, now: float) -> None:
        """Progress is for the shell's display and log; it does not change the state."""

    def _switchover(self, message: m.Switchover, now: float) -> None:
        if self.state == "transfer":
            self.t_stop = message.t_stop
            self._enter("switchover", now)
            # INVITEs are retried on a short timer and the guest's tap keeps frames while the guest is
            # stopped: one is already waiting in its queue when the guest starts to run.
            self._invite()

    def _commit(self, message: m.Commit, now: float) -> None:
        if self.state in ("transfer", "switchover", "running"):
            self._enter("committed", now)
            self._send_unless_lost(m.Committed(job=message.job, t_commit=int(now * 1e9)))
        else:
            self._give_up("protocol", "commit out of turn", now)

    def _source_aborts(self, message: m.Abort, now: float) -> None:
        if self.state == "committed":
            self._finish(True, "protocol", "the source sent ABORT after COMMIT; ignored")
            return
        self._code, self._reason = message.code, f"source: {message.reason}"
        if self.state in ("transfer", "switchover", "running"):
            self._clean(destroy=True, now=now)
        elif self.state == "preparing":
            self._enter("cancelled-early", now)
        elif self.state == "request":
            self._finish(False, message.code, self._reason)

    def _release(self, message: m.Release, now: float) -> None:
        if self.state == "committed":
            self._finish(True)
        else:
            self._give_up("protocol", "release out of turn", now)

    def _invite(self) -> None:
        if self.request is not None and self.request.hid:
            self._do(a.ExpectGuest())

    def _clean(self, *, destroy: bool, now: float) -> None:
        self._enter("cleaning", now)
        self._do(a.Clean(destroy))

    def _send_unless_lost(self, message: m.Message) -> None:
        if not self._lost:
            self._send(message)

    def _give_up(self, code: str, reason: str, now: float) -> None:
        """A fault of the peer: say so and, unless the guest is already ours, clean up as if the stream were
        lost."""
        if self.finished:
            return
        self._code, self._reason = code, reason
        if self.request is not None:
            self._send_unless_lost(m.Abort(job=self.request.job, code=code, reason=reason[:1000]))
        if self.state in ("transfer", "switchover", "running"):
            self._clean(destroy=False, now=now)
        elif self.state == "preparing":
            self._enter("cancelled-early", now)
        elif self.state == "committed":
            self._finish(True, code, reason)
        elif self.state != "cleaning":
            self._finish(False, code, reason)
