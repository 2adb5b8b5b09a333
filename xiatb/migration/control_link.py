"""Runs a control `Session` over a `Wire`: handshake, a writer task, and decoded messages as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from xiatb.errors import DeadlineError, XiatbError
from xiatb.migration.handshake import Session
from xiatb.migration.messages import Message
from xiatb.migration.wirestream import Wire

HANDSHAKE_S = 15.0
_READ = 16384
MAX_UNREAD = 1 << 20
"""Bytes that may wait for a peer that does not read; more end the stream."""


class ControlLink:
    """One control stream. Call `handshake`, then `start`; `send` never blocks."""

    def __init__(self, wire: Wire, session: Session) -> None:
        self._wire = wire
        self.session = session
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._early: list[Message] = []
        self._closing = False
        self._hears: tuple[Callable[[Message], None], Callable[[str], None]]

    async def handshake(self, first: bytes = b"") -> None:
        """Authenticate both sides; `first` is what was read from the wire already.

        Raises WireError, IdentityError, DeadlineError, OSError; the wire is aborted then, and when it is
        cancelled.
        """
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._handshake(first)
        except TimeoutError:
            self._wire.abort()
            raise DeadlineError("the peer's handshake did not come in time") from None
        except (XiatbError, OSError, asyncio.CancelledError):
            self._wire.abort()
            raise

    async def _handshake(self, data: bytes) -> None:
        if data:
            self._early += self.session.feed(data)
        while True:
            if output := self.session.take_output():
                await self._wire.write(output)
            if self.session.established:
                return
            data = await self._wire.read(_READ)
            if not data:
                raise ConnectionResetError("the peer closed the control stream during the handshake")
            self._early += self.session.feed(data)

    def start(self, on_message: Callable[[Message], None], on_lost: Callable[[str], None]) -> None:
        """Deliver messages from now on; `on_lost` is called once when the stream ends or breaks. Another call
        takes the link over: whoever had it before hears nothing more."""
        self._hears = (on_message, on_lost)
        if not self._tasks:
            self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())]

    def send(self, message: Message) -> None:
        """Queue a message for the peer; one that lets too much wait loses the stream."""
        self.session.send(message)
        if self.session.waiting > MAX_UNREAD:
            self._wire.abort()
        self._wake.set()

    async def close(self) -> None:
        """Deliver what is queued, then end the stream."""
        self._closing = True
        self._wake.set()
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._tasks[1]), 5.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError, XiatbError, TimeoutError):
            await asyncio.wait_for(self._wire.close(), 5.0)

    def abort(self) -> None:
        """End the stream at once."""
        for task in self._tasks:
            task.cancel()
        self._wire.abort()

    async def _read(self) -> None:
        reason = "closed by the peer"
        try:
            for message in self._early:
                self._hears[0](message)
            while data := await self._wire.read(_READ):
                for message in self.session.feed(data):
                    self._hears[0](message)
        except (OSError, XiatbError) as error:
            reason = str(error) or type(error).__name__
            self._wire.abort()
        self._hears[1](reason)

    async def _write(self) -> None:
        with contextlib.suppress(OSError, XiatbError):  # the reader reports the loss
            while True:
                await self._wake.wait()
                self._wake.clear()
                while output := self.session.take_output():
                    await self._wire.write(output)
                if self._closing:
                    return
