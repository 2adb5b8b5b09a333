"""What both sides' state machines share: states, actions waiting for the shell, one deadline with its
meaning."""

from __future__ import annotations

from xiatb.migration.actions import Action, Finish, Phase, Send
from xiatb.migration.messages import Message


class Machine:
    """A sans-IO state machine: events in through `on_...` methods, actions out through `take_actions`.

    `deadline` (monotonic seconds, or None) is when the shell must call `tick`; `missing` says what is then
    still awaited.
    """

    def __init__(self, state: str) -> None:
        self.state = state
        self.deadline: float | None = None
        self.missing = ""
        self.finished = False
        self._actions: list[Action] = []

    def take_actions(self) -> list[Action]:
        """The actions asked for since the last call, in order."""
        actions, self._actions = self._actions, []
        return actions

    def tick(self, now: float) -> None:
        """Call `on_timeout` when the deadline has passed."""
        if self.deadline is not None and now >= self.deadline and not self.finished:
            self.deadline = None
            self.on_timeout(now)

    def on_timeout(self, now: float) -> None:
        """What `missing` names did not come in time."""
        raise NotImplementedError

    def _do(self, action: Action) -> None:
        self._actions.append(action)

    def _send(self, message: Message) -> None:
        self._actions.append(Send(message))

    def _enter(self, state: str, now: float, seconds: float | None = None, missing: str = "") -> None:
        self.state = state
        self.deadline = None if seconds is None else now + seconds
        self.missing = missing
        self._do(Phase(state))

    def _finish(self, ok: bool, code: str = "", reason: str = "") -> None:
        if self.finished:
            return
        self.finished = True
        self.deadline = None
        self.state = "done" if ok else "failed"
        self._do(Phase(self.state))
        self._do(Finish(ok, code, reason))
