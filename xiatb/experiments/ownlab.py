"""Labs that a script brings up for itself, and what Ctrl-C or SIGTERM do to it: the lab goes down, whenever
the signal comes, and the script ends with one line and exit code 130.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from xiatb.errors import LabStateError
from xiatb.lab import launch
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruptions:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt in the main thread, later ones do nothing: taking
    down what was made has limits of its own. In an `unbroken` part a signal waits for its end."""

    def __init__(self) -> None:
        self._depth = 0
        self._waiting = self._raised = False

    def arm(self) -> None:
        """From now on; to be called in the main thread."""
        for number in _SIGNALS:
            signal.signal(number, self._come)

    @contextlib.contextmanager
    def unbroken(self) -> Iterator[None]:
        """Nothing is raised in here; what has come meanwhile is raised at the end."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._waiting and not self._depth:
                self._raise()

    def _come(self, number: int, frame: FrameType | None) -> None:
        if self._depth:
            self._waiting = True
        else:
            self._raise()

    def _raise(self) -> None:
        self._waiting = False
        if not self._raised:
            self._raised = True
            raise KeyboardInterrupt


INTERRUPTIONS = Interruptions()
"""The process's; a script calls its `arm`."""


@contextlib.contextmanager
def own_lab(topology: Path, name: str, *, data_plane: str | None = None) -> Iterator[Plan]:
    """The plan of a lab that lives as long as the `with`, however that ends. Raises what launch.bring_up and
    launch.take_down raise; a lab of that name that is up already is left alone."""
    mine = True
    try:
        try:
            plan = launch.bring_up(topology, lab=name, data_plane=data_plane)
        except LabStateError:
            mine = False
            raise
        yield plan
    finally:
        with INTERRUPTIONS.unbroken():
            if mine and LabPaths(name).journal.exists():
                launch.take_down(name)
