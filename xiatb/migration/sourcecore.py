"""What the source's state machine knows, and what it does once the guest may be the destination's.

The guest changes hands at one instant: when libvirt's `Finish` call is let through to the destination. Before
that the journal says "handover" and the guest's stopped process is frozen, so that nothing here can run it,
not even libvirt after this daemon has died. From then on the destination decides, and the source asks until
it knows: `Outcome` "here" or "none" ends the doubt. Post-copy is a hand-over of its own kind: QEMU itself
never runs the source's copy again, and what breaks is recovered.
"""

from __future__ import annotations

from typing import Self

from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.machine import Machine

HANDOVER_S = 30.0
ANSWER_S = 30.0
RETRY_S = 1.0
MOST_RETRY_S = 15.0
CALM_S = 60.0
"""Attempts to ask begin a second apart and end at this; each waits twice as long as the one before."""
ASK_S = 20.0
"""How long the user of a migration that has succeeded waits for the last word; then the disks here stay."""
CARRYING = ("transfer", "switchover", "cancelling")
"""libvirt is at work and the guest is the source's."""


class SourceCore(Machine):
    """State, the hand-over, and the way out of doubt.

    `record` is what the journal on disk says; `there` is True once the destination is known to run the guest.
    """

    def __init__(self, request: m.Request) -> None:
        super().__init__("hello")
        self.request = request
        self.peer: m.Capabilities | None = None
        self.t_stop = self.t_resume = self.t_attached = self.t_commit = 0
        self.locator = ""
        self.leftover: tuple[str, ...] = ()
        self.lost = ""
        self.record = ""
        self.there = False
        self._driving = False
        self._code = self._reason = ""
        self._detached = False
        self._step = ""
        self._asked_at = 0.0
        self._wait = RETRY_S
        self._gone = self._patient = False

    @classmethod
    def restore(cls, request: m.Request, record: str, now: float) -> Self:
        """The machine of a job whose daemon has died or has told its user enough, as its journal tells; it
        begins to ask at once and asks until it knows."""
        machine = cls(request)
        machine.record = record
        machine.there = record == "moved"
        machine.lost = "the migration daemon was started again"
        machine._detached = machine._patient = True
        machine._ask(machine.lost, now)
        return machine

    @property
    def may_start(self) -> bool:
        """The destination may start the guest now; the shell passes libvirt's Finish on only then."""
        return self.state == "handover" or self.record == "postcopy"

    def on_finish(self, postcopy: bool, now: float) -> None:
        """libvirt is about to call Finish, which starts the guest at the destination; `postcopy` if QEMU has
        switched. The shell performs the actions and then looks at `may_start`."""
        if postcopy:
            self.on_switched(self.t_stop, now)
        elif self.state in ("transfer", "switchover") and not self.lost:
            self._write("handover")
            self._do(a.Freeze())
            self._enter("handover", now, HANDOVER_S, "the answer of the destination's hypervisor")

    def on_not_frozen(self, reason: str, now: float) -> None:
        """`Freeze` has failed: the guest is not handed over."""
        if self.state == "handover":
            self._write("transfer")
            self.state = "switchover"
            self._give_up("failed", f"the guest could not be fenced: {reason}", now)

    def on_finish_answer(self, ok: bool, now: float) -> None:
        """libvirt here has got the answer to Finish."""
        if self.record != "handover" or self.finished:
            return
        if ok:
            self._arrived()
        elif self.state == "handover":
            self._ask("the destination's hypervisor did not start the guest", now)

    def switch(self, now: float) -> bool:
        """Go over to post-copy, if the request allows it and memory is being copied."""
        if self.state != "transfer" or self.request.mode == "precopy" or self.lost:
            return False
        self._do(a.StartPostcopy())
        return True

    def on_switched(self, t_stop: int, now: float) -> None:
        """QEMU has switched to post-copy: from here on there is no way back."""
        if self.record == "postcopy" or self.state not in CARRYING:
            return
        self.t_stop = self.t_stop or t_stop
        self._code = self._reason = ""
        self._write("postcopy")
        self._detach()
        self._send_unless_lost(m.Switched(job=self.request.job, t_stop=self.t_stop))
        self._enter("postcopy", now)
        if self.lost:
            self._ask(self.lost, now)

    def on_stalled(self, now: float) -> None:
        """QEMU has paused the post-copy because its stream broke."""
        if self.state == "postcopy":
            self._ask("the post-copy stream broke", now)

    def on_copy_gone(self, now: float) -> None:
        """The stopped copy here has died in post-copy, and with it the pages that had not been sent. Whether
        any was missing is for the destination to say."""
        if self.record == "postcopy" and not self.there and not self.finished:
            self._gone = True
            if self.state == "postcopy":
                self._ask("the guest's process at the source has died", now)

    def on_channel_lost(self, now: float) -> None:
        """The RPC channel broke while libvirt waits for the answer to Finish."""
        if self.state == "handover" and not self.there:
            self._ask("libvirt's connection to the destination broke", now)

    def on_dial_failed(self, reason: str, now: float) -> None:
        """`Redial` did not give a session."""
        if self.state == "asking" and self._step == "dial":
            self._pause(now)

    def _detach(self) -> None:
        if not self._detached:
            self._detached = True
            self._do(a.DetachGuest())

    def _write(self, record: str) -> None:
        self.record = record
        self._do(a.Record(record))

    def _arrived(self) -> None:
        """The destination runs the guest: say so in the journal before the copy here may end."""
        self.there = True
        if self.record == "handover":
            self._write("moved")
            self._do(a.Thaw())

    def _ask(self, reason: str, now: float) -> None:
        """Find out what became of the guest, for as long as it takes."""
        if self.state != "asking":
            if now - self._asked_at > CALM_S:
                self._wait = RETRY_S
            self._asked_at = now
            self._code, self._reason = "lost", reason
            self._enter("asking", now)
        if self.lost:
            self._step, self.deadline = "dial", None
            self._do(a.Redial())
        elif self.record == "postcopy" and self._step != "greet":
            self._pause(now)
        else:
            self._inquire(now)

    def _inquire(self, now: float) -> None:
        self._step = "answer"
        self.deadline, self.missing = now + ANSWER_S, "the destination's word on the guest"
        request = self.request
        self._send(m.Inquire(job=request.job, guest=request.guest, uuid=request.uuid))

    def _pause(self, now: float) -> None:
        self._step = "pause"
        self.deadline, self.missing = now + self._wait, "the next attempt to ask the destination"
        self._wait = min(MOST_RETRY_S, 2 * self._wait)

    def hurry(self, now: float) -> bool:
        """The user does not want to wait for the next attempt to ask; False when none is waited for."""
        if self.state != "asking" or self._step != "pause":
            return False
        self._wait = RETRY_S
        self._still_asking(now)
        return True

    def _still_asking(self, now: float) -> None:
        """A timer ran out while asking."""
        if self._step in ("greet", "answer"):
            self._hang_up(f"{self.missing} did not come", now)
        elif self.there and not self._patient and now - self._asked_at > ASK_S:
            self._write("moved")
            self._do(a.EndCopy())
            kept = "the guest has moved, but the destination does not confirm it: the disks here are kept"
            self._finish(True, "lost", f"{kept}: {self._reason}")
        elif self.lost:
            self._ask(self._reason, now)
        else:
            self._inquire(now)

    def _hang_up(self, reason: str, now: float) -> None:
        """The session is of no use; ask in a new one."""
        if not self.lost:
            self.lost = reason
            self._do(a.Hangup())
        if self.state != "asking":
            self._asked_at = now
            self._code, self._reason = "lost", reason
            self._enter("asking", now)
        self._pause(now)

    def _outcome(self, message: m.Outcome, now: float) -> None:
        """The destination's word."""
        unasked = self.state == "commit" and message.fate == "lost"
        if not unasked and (self.state != "asking" or self._step != "answer"):
            self._give_up("protocol", "outcome out of turn", now)
        elif message.fate == "here":
            self._settled_there(message, now)
        elif message.fate == "postcopy" and self.record == "postcopy":
            if self._gone:  # the answer to this is an outcome, again
                self._send(m.Abort(job=self.request.job, code="lost", reason=self._reason[:1000]))
            else:
                self._send(m.Recover(job=self.request.job, tls=self.request.tls))
            self.deadline = now + ANSWER_S
        elif message.fate == "none" and self.record == "handover" and not self.there:
            self._settled_here(now)
        elif message.fate in ("lost", "none"):
            # After the switch, or after the guest was seen there: it cannot run here again.
            self._do(a.EndCopy())
            if message.fate == "lost" and message.t_resume:  # its disk there is whole and newer
                self._do(a.RemoveDisks())
            self._released()
            when = self._reason or "it ended before it was confirmed"
            self._finish(False, "guest-lost", f"the guest has died at the destination: {when}")
        else:
            self._give_up("protocol", f"outcome {message.fate} does not fit {self.record}", now)

    def _settled_there(self, message: m.Outcome, now: float) -> None:
        self.t_resume = self.t_resume or message.t_resume
        self.locator = self.locator or message.locator
        self.there = True
        self._write("moved")
        self._do(a.EndCopy())
        self._do(a.RemoveDisks())
        self.t_commit = int(now * 1e9)
        self._released()
        self._finish(True)

    def _settled_here(self, now: float) -> None:
        """The destination will never run it. libvirt's call, if it still waits, now fails and lets it run
        here; `RunHere` makes sure of it after a restart."""
        self._write("transfer")
        self._do(a.Thaw())
        if self._driving:
            self._do(a.CloseChannels())
            self._enter("cancelling", now)
            return
        self._detached = False
        self._do(a.RunHere())
        self._released()
        self._finish(False, self._code, f"{self._reason}; the guest runs on here")

    def _recovering(self, message: m.Accept, now: float) -> None:
        """Fresh channels for a broken post-copy."""
        self._driving = True
        self._enter("postcopy", now)
        self._do(a.RecoverTransfer(message.channels, message.tls))

    def _released(self) -> None:
        """Nothing more is needed of the destination."""
        self._send_unless_lost(m.Release(job=self.request.job))
        self._do(a.Forget())

    def _send_unless_lost(self, message: m.Message) -> None:
        if not self.lost:
            self._send(message)

    def _give_up(self, code: str, reason: str, now: float) -> None:
        raise NotImplementedError
