"""The datagram responder: sends every datagram back to where it came from, payload unchanged.

It is the far end of the 1 kHz probe, so it does as little as possible per packet: Python in a TCG
guest is some 25 times slower than outside.
"""

from __future__ import annotations

from typing import Any

from xiatb.guests.agent.protocol import Message
from xiatb.guests.agent.services.base import ServiceSpec
from xiatb.guests.agent.services.fastecho import FlowCache

LINGER = 0.05
"""Longest stay away from the event loop (s): the agent's questions wait that long at most."""


class Responder:
    """The service object; binds the SID of its key as a datagram socket."""

    def __init__(self, spec: ServiceSpec) -> None:
        self._spec = spec
        self._socket: Any = None
        self._answered = 0
        self._quick = 0
        self._bytes = 0
        self._failed = 0

    async def start(self) -> None:
        """Opens the datagram socket on the node's socket API."""
        from xiatb.identity.keys import KeyPair
        from xiatb.node.aio import open_datagram

        self._socket = await open_datagram(KeyPair.from_pem_file(self._spec.key))
        self._socket.on_receive(self._receive)
        driver = self._socket.bound.driver
        flows = FlowCache(driver.endpoint)
        send = driver.send_packet

        def shortcut(frame: memoryview, now: float) -> bool:
            answer = flows.find(frame, now)
            if answer is None:
                flows.learn(frame, now)
                return False
            header, start, end = answer
            if send(header, frame[start:end]):
                self._quick += 1
                self._bytes += end - start
            else:
                self._failed += 1
            return True

        driver.shortcut = shortcut
        driver.linger = LINGER

    def counters(self) -> Message:
        """Datagrams and payload bytes answered (`quick`: without the transport), and those that failed."""
        answered = self._answered + self._quick
        return {"answered": answered, "quick": self._quick, "bytes": self._bytes, "failed": self._failed}

    async def control(self, message: Message) -> Message:
        """A responder has no requests of its own."""
        raise ValueError(f"a responder knows no {message.get('op')!r}; it knows counters")

    def _receive(self, payload: bytes, source: Any) -> None:
        try:
            self._socket.send(payload, source)
        except OSError:
            self._failed += 1
        else:
            self._answered += 1
            self._bytes += len(payload)
