"""The stream echo: gives back what it gets on any number of connections, and counts."""

from __future__ import annotations

from typing import Any

from xiatb.guests.agent.protocol import Message
from xiatb.guests.agent.services.base import EchoedStreams, ServiceSpec


class Echo:
    """The service object; binds the SID of its key and listens."""

    def __init__(self, spec: ServiceSpec) -> None:
        self._spec = spec
        self._server: Any = None
        self._streams = EchoedStreams()

    async def start(self) -> None:
        """Opens the listener on the node's socket API."""
        from xiatb.identity.keys import KeyPair
        from xiatb.node.aio import start_server

        self._server = await start_server(self._streams.serve, KeyPair.from_pem_file(self._spec.key))

    def counters(self) -> Message:
        """Connections (open, accepted, broken) and bytes echoed."""
        streams = self._streams
        return {
            "open": streams.open, "accepted": streams.accepted, "bytes": streams.bytes,
            "broken": streams.broken,
        }  # fmt: skip

    async def control(self, message: Message) -> Message:
        """An echo has no requests of its own."""
        raise ValueError(f"an echo knows no {message.get('op')!r}; it knows counters")
