"""Names that an application holds: registered with its service's key, and again whenever the node moves."""

from __future__ import annotations

import asyncio
import logging
import time

from xiatb.errors import XiatbError
from xiatb.identity.keys import KeyPair
from xiatb.node.locator import NodeLocator
from xiatb.node.services import RETRY, TTL, registration
from xiatb.node.stack import Stack
from xiatb.wire.xid import XidType

log = logging.getLogger("xiatb.node")


class NameHold:
    """One name of one service, from `hold` to `close` or the end of the node process."""

    def __init__(self, stack: Stack, name: str, key: KeyPair) -> None:
        """Use `hold`."""
        self.name = name
        self._stack = stack
        self._key = key
        self._sid = key.xid(XidType.SID)
        self._seq = 0
        self._told: NodeLocator | None = None
        self._task: asyncio.Task[None] | None = None
        self._ticket = 0

    @classmethod
    async def hold(cls, stack: Stack, name: str, key: KeyPair) -> NameHold:
        """Registers `name` for the service of `key` on this node, for as long as the loop runs.

        Raises ControlError: EACCES (the name is another's), ENOTSUP (no name server), ETIMEDOUT, ENETUNREACH.
        """
        made = cls(stack, name, key)
        await made._register(await stack.locator())
        made._ticket = stack.attach(made._moved, lambda error: made.close())
        made._start(TTL / 3)
        return made

    async def _register(self, locator: NodeLocator) -> None:
        self._seq = max(self._seq + 1, time.time_ns())
        record = registration(self.name, locator.service(self._sid), self._key, self._seq)
        await self._stack.request("register", record=record.hex())
        self._told = locator

    def _moved(self, locator: NodeLocator) -> None:
        if self._told is None or locator.dag != self._told.dag:
            self._start(0.0)

    def _start(self, pause: float) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._keep(pause))

    async def _keep(self, pause: float) -> None:
        """Registers after `pause` seconds, then before every end; soon again when nobody answered."""
        retry = RETRY[0]
        while True:
            await asyncio.sleep(pause)
            try:
                await self._register(await self._stack.locator())
                pause, retry = TTL / 3, RETRY[0]
            except XiatbError as error:
                log.warning("name %s: %s", self.name, error.message)
                pause, retry = retry, min(2 * retry, RETRY[1])

    def close(self) -> None:
        """Lets the name run out."""
        self._stack.detach(self._ticket)
        if self._task is not None:
            self._task.cancel()
