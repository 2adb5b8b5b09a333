"""The IP baseline as the lab's migration manager uses it: migrations over TCP, IPv4 that follows guests."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from xiatb.errors import UsageError, XiatbError
from xiatb.guests.client import AgentClient
from xiatb.guests.model import AGENT_SOCKET
from xiatb.lab import baselinenet
from xiatb.lab.extensions import LabContext
from xiatb.migration.options import parse
from xiatb.migration.tcptransport import Emit, TcpMigration
from xiatb.node.control_protocol import ControlError

log = logging.getLogger("xiatb.migration")
TRANSPORTS = ("xia", "tcp")
AGENT_S = 20.0


class TcpTransport:
    """What the manager uses: migrations over TCP, by guest, and IPv4 that follows a guest in any case."""

    def __init__(self) -> None:
        self._running: dict[str, TcpMigration] = {}

    def migrate(
        self, context: LabContext, guest: str, source: str, to: str, storage: bool,
        wanted: dict[str, Any], emit: Emit,
    ) -> dict[str, Any]:  # fmt: skip
        """Move the guest, in a thread without an event loop. Raises ControlError."""
        if context.plan.baseline is None:
            hint = "write baseline: ip in its topology"
            raise ControlError("EUSAGE", f"{context.plan.lab} has no IP baseline: {hint}")
        if guest in self._running:
            raise ControlError("busy", f"guest {guest} is already being moved")
        try:
            options = parse(wanted)
        except UsageError as error:
            raise ControlError("EUSAGE", error.message) from None
        for name in ("congestion", "backing", "timeout"):
            if getattr(options, name):
                raise ControlError("EUSAGE", f"{name} is not for a migration over TCP/IP")
        job = TcpMigration(context, guest, source, to, options, emit)
        self._running[guest] = job
        try:
            return asyncio.run(job.run(storage))
        except (XiatbError, OSError) as error:
            if isinstance(error, ControlError):
                raise
            raise ControlError("failed", str(error)) from None
        finally:
            self._running.pop(guest, None)

    def cancel(self, guest: str) -> bool | None:
        """Abort the guest's migration; False: too late, None: there is none over TCP."""
        job = self._running.get(guest)
        return None if job is None else job.cancel()

    def follow(self, context: LabContext, guest: str, source: str, to: str) -> None:
        """After a move, by whatever transport: the guest's address leads to `to`, and in another AD it takes
        an address of that AD, as it would by DHCP. A guest that does not answer keeps its old one."""
        plan = context.plan
        if plan.baseline is None:
            return
        record = plan.guest(guest)
        baselinenet.place_guest(plan, record, to)
        address = plan.baseline.address(guest, to)
        if address == plan.baseline.address(guest, source):
            return
        baselinenet.forget_guest(plan, record, source)
        path = Path(f"/proc/{context.node_pid(to)}/root{AGENT_SOCKET.format(guest=guest)}")
        try:
            AgentClient(lambda: path).request({"op": "address", "address": address}, AGENT_S)
        except XiatbError as error:
            log.warning("guest %s did not take the address %s: %s", guest, address, error.message)
