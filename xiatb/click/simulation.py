"""A world in virtual time for configurations that need no node: sources, links and sinks in memory."""

from __future__ import annotations

from collections.abc import Callable

from xiatb.click.context import ManualContext, ManualDevice
from xiatb.errors import XiatbError

MAX_CALLS = 5_000_000


class SimulatedContext(ManualContext):
    """A manual world whose ports exist once somebody names them; its log goes to `emit(now, msg)`."""

    def __init__(self, emit: Callable[[float, str], None], seed: int = 1) -> None:
        super().__init__(seed=seed)
        self._emit = emit
        self._calls = 0

    def device(self, name: str) -> ManualDevice | None:
        """The port of that name; what is sent by it is gone."""
        return self.devices.get(name) or self.add_device(name)

    def log(self, level: str, msg: str) -> None:
        """Hand a line on."""
        self._emit(self.now(), msg)

    def call_at(self, deadline: float, fn: Callable[[], None]):  # type: ignore[no-untyped-def]
        """As ManualContext; counts, so that a source without a rate does not hold the clock for ever."""
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise XiatbError(f"more than {MAX_CALLS} timers: does a source have no rate and no limit?")
        return super().call_at(deadline, fn)
