"""The guest's copy at the source while it is not settled where the guest runs: its journal entry and its
fence, and in the end either its death or its going on.

What decides where the guest runs is on disk, or done to the process, before `perform` returns.
"""

from __future__ import annotations

import time
from functools import partial

from xiatb.errors import XiatbError
from xiatb.migration import actions as a
from xiatb.migration import journal as j
from xiatb.migration import params
from xiatb.migration.fate import insist
from xiatb.migration.fence import Fence
from xiatb.migration.shell import JobShell
from xiatb.migration.source import SourceMachine
from xiatb.migration.station import Station


class KeptCopy:
    """Of one job; `peer` is the name of the host to which the guest moves."""

    def __init__(
        self, machine: SourceMachine, station: Station, peer: str, fence: Fence, shell: JobShell
    ) -> None:
        """`machine` is told when the copy cannot be frozen; what takes time is spawned by `shell`."""
        self._machine = machine
        self._request = machine.request
        self._station = station
        self._peer = peer
        self._fence = fence
        self._shell = shell

    def perform(self, action: a.Action) -> None:
        """Do what the machine asks for; nothing for actions that are not about the copy here."""
        if isinstance(action, a.Record):
            self._record(action.state)
        elif isinstance(action, a.Forget):
            self._station.journal.close(self._request.job, j.SOURCE)
        elif isinstance(action, a.Freeze):
            try:
                self._fence.freeze()
            except XiatbError as error:
                self._machine.on_not_frozen(error.message, time.monotonic())
        elif isinstance(action, a.Thaw):
            self._fence.thaw()
        elif isinstance(action, a.EndCopy):
            self._fence.kill()
            self._shell.spawn(self._end(), must=True)
        elif isinstance(action, a.RunHere):
            self._shell.spawn(self._run_on(), must=True)

    def _record(self, state: str) -> None:
        request = self._request
        sockets = tuple(map(str, params.all_sockets(self._station.config.runtime, request.job)))
        journal = self._station.journal
        write = journal.write if state == "handover" else journal.note  # nothing is handed over without
        write(
            j.Entry(request.job, j.SOURCE, state, self._peer, request, sockets=sockets,
                    process=self._fence.process)
        )  # fmt: skip

    async def _end(self) -> None:
        """libvirt notices the end of the process by itself; the definition is removed after that."""
        await insist(partial(self._station.driver.destroy, self._request.guest), self._shell.name)

    async def _run_on(self) -> None:
        await insist(partial(self._station.driver.resume, self._request.guest), self._shell.name)
        self._station.node.expect(self._request.hid, self._request.port)
