"""Holds a migration in its phase while the blow falls: its source's daemon is stopped (SIGSTOP) meanwhile.

Switchover and hand-over last some hundredths of a second, less than a link needs to be taken down. Every byte
of a migration goes through its source's daemon, so while that stands still the phase does not end.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from xiatb.errors import XiatbError
from xiatb.lab.client import ControlClient
from xiatb.lab.paths import LabPaths
from xiatb.lab.process import ProcessId
from xiatb.migration.manager import socket_path

STARTED_S = 10.0
PULSE_S = 0.002
_LOOK_S = 0.1


class Hold:
    """While it is entered `daemon` stands still."""

    def __init__(self, daemon: ProcessId) -> None:
        self._daemon = daemon

    def __enter__(self) -> Self:
        if not self._daemon.signal(signal.SIGSTOP):
            raise XiatbError("the source's migration daemon is gone")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._daemon.signal(signal.SIGCONT)

    def until(self, reached: Callable[[], bool], otherwise: str, pulse_s: float = PULSE_S) -> None:
        """Until `reached`. Should that need a packet of the daemon which has not left yet, it leaves in one
        of the pulses, `pulse_s` long, for which the daemon runs. Raises XiatbError(otherwise) after
        STARTED_S."""
        deadline = time.monotonic() + STARTED_S
        while time.monotonic() < deadline:
            look = time.monotonic() + _LOOK_S
            while time.monotonic() < look:
                if reached():
                    return
            self._daemon.signal(signal.SIGCONT)
            time.sleep(pulse_s)
            self._daemon.signal(signal.SIGSTOP)
        raise XiatbError(otherwise)


def started(paths: LabPaths, host: str) -> bool:
    """Whether the daemon of `host` knows that the guest of a job there runs."""
    with ControlClient(socket_path(paths, host)) as client:
        incoming: list[dict[str, Any]] = client.request("status")["incoming"]
    return any(one["state"] == "running" for one in incoming)
