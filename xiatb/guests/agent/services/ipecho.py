"""The IP baseline's echo: gives back TCP bytes and UDP datagrams on the port of RFC 862, with plain sockets.

What the XIA services echo and responder are for XIA. Datagrams are answered in a loop of two system calls,
without asyncio's transport, because Python in a TCG guest is some 25 times slower than outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from xiatb.guests.agent.protocol import Message
from xiatb.guests.agent.services.base import READ, EchoedStreams, ServiceSpec

PORT = 7
"""RFC 862."""
_BURST = 64
RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
"""<asm-generic/socket.h>; above net.core.rmem_max."""


class IpEcho:
    """The service object; listens on all addresses, so it goes on when the guest's address changes."""

    def __init__(self, spec: ServiceSpec) -> None:
        self._port = int(spec.options.get("port", PORT))
        self._server: asyncio.Server | None = None
        self._datagrams: socket.socket | None = None
        self._streams = EchoedStreams()
        self._answered = 0
        self._failed = 0

    async def start(self) -> None:
        """Opens both sockets; raises OSError when the port is taken."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._streams.serve, port=self._port, family=socket.AF_INET
            )
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        # A guest that has just moved is slow for some tenths of a second: requests wait rather than get lost.
        with contextlib.suppress(OSError):  # not root: the default has to do
            datagrams.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        try:
            datagrams.bind(("", self._port))
        except OSError:
            datagrams.close()
            raise
        self._datagrams = datagrams
        asyncio.get_running_loop().add_reader(datagrams, self._answer, datagrams)

    def counters(self) -> Message:
        """Connections (accepted, broken), bytes echoed, datagrams answered and failed."""
        streams = self._streams
        return {
            "accepted": streams.accepted, "broken": streams.broken, "bytes": streams.bytes,
            "answered": self._answered, "failed": self._failed,
        }  # fmt: skip

    async def control(self, message: Message) -> Message:
        """It has no requests of its own."""
        raise ValueError(f"an IP echo knows no {message.get('op')!r}; it knows counters")

    def _answer(self, datagrams: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                payload, source = datagrams.recvfrom(READ)
            except BlockingIOError:
                return
            except OSError:  # ICMP about an earlier answer
                self._failed += 1
                continue
            try:
                datagrams.sendto(payload, source)
            except OSError:
                self._failed += 1
            else:
                self._answered += 1
