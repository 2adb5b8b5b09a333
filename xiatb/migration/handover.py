"""The move of a guest's place in the network, prepared while it still runs and switched when it stops.

The destination's node gives an INVITE for the guest (`offer`), which comes with ACCEPT. The source's daemon
hands it to the guest through its agent; the JOIN that the guest signs (its delegation) goes to the
destination, whose node keeps it (`hold`) until the guest has stopped. From then on packets wait in front of
the guest at its destination, and the source's node sends on what still comes to it (`Departure`).

Nobody waits for any of it: without an agent, or with a slow one, the guest joins by itself after RESUME, and
the user is told so at STOP.
Nothing that the guest says is trusted: its answer is bounded, its JOIN proved by the destination's node.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.guests.agent.protocol import Message
from xiatb.guests.client import Exchange, result_of
from xiatb.migration import actions as a
from xiatb.migration.config import DaemonConfig
from xiatb.migration.fields import hexadecimal
from xiatb.migration.messages import Consent, Request, build
from xiatb.migration.nodeaccess import NodeAccess
from xiatb.migration.source import SourceMachine
from xiatb.migration.station import Station
from xiatb.node.join_messages import JOIN_LEN
from xiatb.wire.xid import XID

log = logging.getLogger("xiatb.migration")
ASK_S = 20.0
"""How long the guest may take to sign, while the transfer goes on: a busy one under TCG takes seconds."""
CONSENT_S = 2.0
"""How long a migration waits for the guest's consent before it begins when the policy here asks for it."""
UNASKED_S = 0.5
"""The same when it does not: it is for the destination's policy then, and a busy guest takes long to sign."""
REDIRECT_S = 10.0
"""How long the source's node sends packets on: peers hear of the move within a second, or ask the rendezvous
service."""
_READ = 65536
_JOIN = hexadecimal(JOIN_LEN)


def agent_socket(runtime: Path, guest: str) -> Path:
    """The UNIX socket of a guest's agent on its hypervisor host (guests.model.AGENT_SOCKET)."""
    return runtime / f"agent-{guest}.sock"


async def ask_agent(path: Path, request: Message, seconds: float) -> Message:
    """The result of one request to the agent at `path`. Raises XiatbError, OSError or TimeoutError."""
    exchange = Exchange(request)
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_unix_connection(str(path))
        try:
            writer.write(exchange.opening)
            while data := await reader.read(_READ):
                answer = exchange.feed(data)
                if answer is not None:
                    return result_of(answer)
        finally:
            writer.close()
    raise XiatbError("the guest's agent hung up")


async def ask_consent(path: Path, destination: XID, seconds: float = ASK_S) -> Consent | None:
    """The guest's consent to be moved to the host whose daemon has this SID; None when there is none."""
    try:
        answer = await ask_agent(path, {"op": "consent", "destination": str(destination)}, seconds)
        return build(Consent, answer)
    except (XiatbError, OSError, TimeoutError) as error:
        log.warning("no consent of the guest at %s: %s", path.name, str(error) or "it does not answer")
        return None


async def with_consent(
    request: Request, config: DaemonConfig, destination: XID, emit: Callable[[dict[str, Any]], None]
) -> Request:
    """The request with the guest's consent to move to the host of this daemon, if it gives one in time."""
    if not request.hid:
        return request
    emit({"event": "phase", "phase": "consent", "t_ns": time.monotonic_ns()})
    patience = CONSENT_S if "consent" in config.policy.require else UNASKED_S
    consent = await ask_consent(agent_socket(config.runtime, request.guest), destination, patience)
    return request if consent is None else dataclasses.replace(request, consent=consent)


async def offer(node: NodeAccess, request: Request) -> tuple[str, str]:
    """At the destination: the INVITE for the guest in hex, and this host's locator; ("", "") without a node
    or for a guest without XIA."""
    if not request.hid or not request.port:
        return "", ""
    prepared = await node.ask("guest_prepare", hid=request.hid, port=request.port)
    return (str(prepared["invite"]), node.locator()) if prepared is not None else ("", "")


async def hold(node: NodeAccess, request: Request, join: str) -> None:
    """At the destination: give the guest's JOIN to the node, which proves and keeps it."""
    await node.ask("guest_delegate", hid=request.hid, port=request.port, join=join)


class Departure:
    """The source's part for one guest."""

    def __init__(
        self,
        request: Request,
        station: Station,
        machine: SourceMachine,
        step: Callable[[], None],
        note: Callable[[dict[str, Any]], None],
    ) -> None:
        """`machine` is told of the delegation, then `step` is called. `note` gets an entry, like a decision
        of the controller, when the guest has stopped and there is no delegation."""
        self._request = request
        self._node = station.node
        self._agent = agent_socket(station.config.runtime, request.guest)
        self._machine = machine
        self._step = step
        self._note = note
        self._locator = ""
        self._asked_ms: float | None = None
        self._missing = ""
        """why there is no delegation; "" when there is one, none was asked for, or the user knows"""
        self._tasks: set[asyncio.Task[None]] = set()

    def perform(self, action: a.DetachGuest | a.ReattachGuest | a.AskDelegation) -> None:
        """An action of the machine."""
        if isinstance(action, a.AskDelegation):
            self._locator = action.locator
            if action.invite:
                self._missing = "its agent has not answered yet"
                self._spawn(self._ask(action.invite))
        elif isinstance(action, a.ReattachGuest):
            self._node.expect(self._request.hid, self._request.port)
        else:
            self._leave()

    def report(self) -> dict[str, Any]:
        """For the result: whether the guest has signed a delegation in time and how long that took, in ms."""
        return {"delegated": self._asked_ms is not None, "asked_ms": self._asked_ms}

    def close(self) -> None:
        """Wait for the guest no longer."""
        for task in self._tasks:
            task.cancel()

    def _leave(self) -> None:
        """The guest has stopped."""
        if self._locator:
            self._node.redirect(self._request.hid, self._locator, REDIRECT_S)
        else:
            self._node.detach(self._request.hid)
        if self._missing:
            reason = f"no delegation: {self._missing}"
            self._note({"kind": "join", "value": 0, "reason": reason, "by": "handover",
                        "t_ns": time.monotonic_ns()})  # fmt: skip
            self._missing = ""

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, invite: str) -> None:
        begin = time.monotonic()
        try:
            answer = await ask_agent(self._agent, {"op": "delegate", "invite": invite}, ASK_S)
            join = _JOIN(answer.get("join"))
        except (XiatbError, OSError, TimeoutError) as error:
            self._missing = str(error) or "its agent does not answer"
            log.warning("guest %s signs no delegation: %s", self._request.guest, self._missing)
            return
        now = time.monotonic()
        if self._machine.on_delegated(join, now):
            self._missing, self._asked_ms = "", round((now - begin) * 1000, 3)
            self._step()
