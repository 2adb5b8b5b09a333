"""The stream echo: gives back what it gets on any number of connections, and counts."""

from __future__ import annotations

from typing import Any

from xiatb.errors import XiatbError
from xiatb.guests.agent.protocol import Message
from xiatb.guests.agent.services.base import ServiceSpec

READ = 64 * 1024


class Echo:
    """The service object; binds the SID of its key and listens."""

    def __init__(self, spec: ServiceSpec) -> None:
        self._spec = spec
        self._server: Any = None
        self._open = 0
        self._accepted = 0
        self._bytes = 0
        self._broken = 0

    async def start(self) -> None:
        """Opens the listener on the node's socket API."""
        from xiatb.identity.keys import KeyPair
        from xiatb.node.aio import start_server

        self._server = await start_server(self._serve, KeyPair.from_pem_file(self._spec.key))

    def counters(self) -> Message:
        """Connections (open, accepted, broken) and bytes echoed."""
        return {"open": self._open, "accepted": self._accepted, "bytes": self._bytes, "broken": self._broken}

    async def control(self, message: Message) -> Message:
        """An echo has no requests of its own."""
        raise ValueError(f"an echo knows no {message.get('op')!r}; it knows counters")

    async def _serve(self, reader: Any, writer: Any) -> None:
        self._open += 1
        self._accepted += 1
        try:
            while data := await reader.read(READ):
                self._bytes += len(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()
            await writer.drain()
        except (OSError, EOFError, XiatbError):
            self._broken += 1
        finally:
            self._open -= 1
            writer.close()
