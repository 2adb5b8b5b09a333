"""The daemon's requests to its node process: invite a guest, withdraw it, learn that it has joined."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.node import stack
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID

log = logging.getLogger("xiatb.migration")
OnJoined = Callable[[str, int], None]


class NodeAccess:
    """Fire-and-forget: a node that does not answer is logged, and the guest then joins by itself, slower."""

    def __init__(self, control: Path | None) -> None:
        self._control = control
        self._waiting: dict[str, OnJoined] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._heard: stack.Stack | None = None

    def expect(self, hid: str, port: str, on_joined: OnJoined | None = None) -> None:
        """Invite the guest; `on_joined(locator, t_ns)` is called once when it has joined here."""
        if self._control is None or not hid:
            return
        if on_joined is not None:
            self._waiting[hid] = on_joined
        self._spawn("guest_expect", hid=hid, port=port)

    def redirect(self, hid: str, to: str, seconds: float) -> None:
        """The guest has stopped here: send its packets on to the host with locator `to`, for so long."""
        self._waiting.pop(hid, None)
        if self._control is not None and hid:
            self._task(self._redirect(hid, to, seconds))

    async def _redirect(self, hid: str, to: str, seconds: float) -> None:
        if await self.ask("guest_redirect", hid=hid, to=to, seconds=seconds) is None:
            await self.ask("guest_detach", hid=hid)

    async def ask(self, op: str, **arguments: Any) -> dict[str, Any] | None:
        """The node's answer to one operation; None when there is no node or it refuses, which is logged."""
        return None if self._control is None else await self._ask(op, arguments)

    def locator(self) -> str:
        """This host's locator as text, "" before the node has answered anything."""
        current = self._heard.current if self._heard is not None else None
        return "" if current is None else str(current.dag)

    def detach(self, hid: str) -> None:
        """Withdraw the guest's routes and stop inviting it."""
        self._waiting.pop(hid, None)
        if self._control is not None and hid:
            self._spawn("guest_detach", hid=hid)

    async def settle(self) -> None:
        """Wait until the requests under way are answered or have failed."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5.0)

    def _spawn(self, op: str, **arguments: Any) -> None:
        self._task(self._ask(op, arguments))

    def _task(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, op: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        try:
            node = stack.default(self._control)
            if node is not self._heard:
                self._heard = node
                node.listen(self._event)
            return await node.request(op, **arguments)
        except (XiatbError, OSError) as error:
            log.warning("%s %s: %s", op, arguments.get("hid"), error)
            return None

    def _event(self, event: dict[str, Any]) -> None:
        if event.get("event") != "guest_joined":
            return
        t = time.monotonic_ns()
        hid = str(event.get("hid", ""))
        on_joined = self._waiting.pop(hid, None)
        if on_joined is not None:
            on_joined(str(event.get("dag") or self._locator(hid)), t)

    def _locator(self, hid: str) -> str:
        current = self._heard.current if self._heard is not None else None
        if current is None:
            return ""
        # The host's own locator with the guest's HID in place of its own: it keeps a 4ID fallback.
        return str(DAG((*current.dag.nodes[:-1], XID.parse(hid)), current.dag.edges, current.dag.entry))
