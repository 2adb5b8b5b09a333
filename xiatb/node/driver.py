"""Drives one transport endpoint on one packet socket in an asyncio loop.

Frames are drained up to 64 a wake-up, then there is one pass of the endpoint's output, whose packets
go to the kernel as (Ethernet, header, payload) without being joined. The one timer is set to the
endpoint's next deadline. A new locator of the node moves the endpoint at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from xiatb.errors import XiatbError
from xiatb.fastpath import batch, trains
from xiatb.node import sid_filter
from xiatb.node.alarm import Alarm
from xiatb.node.control_protocol import ControlError
from xiatb.node.locator import NodeLocator
from xiatb.node.packet_socket import DRAIN_BUDGET, PacketSocket
from xiatb.node.stack import Stack
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.packets import Out
from xiatb.wire.xid import XID
from xiatb.wire.xip import ETH_P_XIP

_LINGER_STEP = 0.003
SHORTCUT_BUDGET = 8
"""Frames read at once for a shortcut: the first one's answer waits until the last one is read."""
SEND_BUDGET = 256
"""Segments sent in one turn of the loop: bounds the time until acknowledgements are read."""
SOCKET_BUFFER = 16 << 20
"""Receive buffer of one socket, in kernel memory: half of it is frame headers and slack. A receiver that has
no core for some milliseconds needs it at several Gbit/s."""


class EndpointDriver:
    """An endpoint at work.

    on_activity() is called after every batch of input or timers; on_lost(error) once, when the node
    process is gone or the network device is. After that the driver is closed.
    """

    def __init__(
        self,
        stack: Stack,
        endpoint: Endpoint,
        sid: XID,
        locator: NodeLocator,
        on_activity: Callable[[], None],
        on_lost: Callable[[XiatbError], None],
    ) -> None:
        """Opens the socket. Raises DeviceError."""
        self.stack = stack
        self.endpoint = endpoint
        self.sid = sid
        self.locator = locator
        self._loop = asyncio.get_running_loop()
        self._on_activity = on_activity
        self._on_lost = on_lost
        self._alarm = Alarm(self._loop, self._on_timer)
        self._pump_handle: asyncio.Handle | None = None
        self._now = 0.0
        self._closed = False
        self._fed = False
        self.shortcut: Callable[[memoryview, float], bool] | None = None
        """Sees every frame before the endpoint; True: the frame is dealt with. For services that answer
        known packets without a transport (the 1 kHz responder in a slow guest)."""
        self.linger = 0.0
        """Seconds for which a wake-up waits for more frames before it returns to the loop, as long as they
        keep coming and the shortcut deals with all of them: a turn of the loop costs more than a frame."""
        batch.keep_memory()
        self._open(locator)
        self._ticket = stack.attach(self._relocated, self._lost)

    @property
    def closed(self) -> bool:
        """True after `close` or when the node is gone."""
        return self._closed

    def _open(self, locator: NodeLocator) -> None:
        program = sid_filter.match_intent(self.sid.key)
        self._socket = PacketSocket(locator.ifname, ETH_P_XIP, program=program, receive_buffer=SOCKET_BUFFER)
        self._ethernet = locator.gateway_mac + locator.mac + ETH_P_XIP.to_bytes(2, "big")
        self._loop.add_reader(self._socket.fileno(), self._readable)

    # Input

    def _readable(self) -> None:
        end = time.monotonic() + self.linger
        while not self._closed:
            try:
                if self.shortcut is None:
                    self._take_trains()
                else:
                    self._take_frames(self.shortcut)
            except OSError as error:
                self._lost(ControlError("ENETDOWN", f"{self._socket.ifname}: {error}"))
                return
            if self._fed:
                self._fed = False
                self.pump()
                return
            if self._now >= end or not self._socket.wait(_LINGER_STEP):
                return

    def _take_trains(self) -> None:
        endpoint = self.endpoint
        got = self._socket.receive_trains(DRAIN_BUDGET)
        # The clock after the socket: with one from before, frames that came while this process had no
        # core would seem to have come before they were sent, and round trips too short.
        now = self._now = time.monotonic()
        for packet, payload, segments in got:
            self._fed = True
            if segments == 1:
                endpoint.receive(packet, now)
            else:
                endpoint.receive_train(packet, payload, segments, now)

    def _take_frames(self, shortcut: Callable[[memoryview, float], bool]) -> None:
        frames = self._socket.receive_frames(SHORTCUT_BUDGET)
        now = self._now = time.monotonic()
        for frame in frames:
            if not shortcut(frame, now):
                self._fed = True
                self.endpoint.receive(frame[14:], now)

    def send_packet(self, header: bytes, payload: bytes | memoryview) -> bool:
        """Sends one XIP packet past the endpoint, to the gateway; False when it was dropped."""
        return self._socket.send_parts((self._ethernet, header, payload))

    # Output

    def poke(self) -> None:
        """Something was written or read: transmit soon, once for all that happens in this turn."""
        if self._pump_handle is None and not self._closed:
            self._pump_handle = self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Transmits what may go out, tells of activity, and sets the timer."""
        if self._pump_handle is not None:
            self._pump_handle.cancel()
            self._pump_handle = None
        if self._closed:
            return
        self._on_activity()
        if self._closed:
            return
        outs = self.endpoint.transmit(time.monotonic(), SEND_BUDGET)
        refused = self._send(outs)
        if refused:
            self.endpoint.not_sent(refused, time.monotonic())
        deadline = self.endpoint.next_deadline()
        if outs and deadline is not None and deadline <= 0.0:
            # More may wait: let the loop read acknowledgements in between.
            self.poke()
            return
        self._alarm.set(deadline)

    def _send(self, outs: list[Out]) -> list[Out]:
        """Sends packets and trains; the packets, and segments of trains, that were dropped."""
        refused: list[Out] = []
        sock, ethernet = self._socket, self._ethernet
        for out in outs:
            if len(out) == 2:
                if not sock.send_parts((ethernet, *out)):
                    refused.append(out)
                continue
            header, payload, mss, *_ = out
            for number in sock.send_train(ethernet, header, payload, mss):
                refused.append(trains.cut(header, payload, mss, number))
        return refused

    def _on_timer(self) -> None:
        self.endpoint.tick(time.monotonic())
        self.pump()

    # Changes around us

    def _relocated(self, locator: NodeLocator) -> None:
        """The node is somewhere else now, or has joined anew: move there at once."""
        try:
            self._move(locator)
        except XiatbError as error:
            self._lost(error)

    def _move(self, locator: NodeLocator) -> None:
        old, self.locator = self.locator, locator
        if locator.ifname != old.ifname:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._open(locator)
        self._ethernet = locator.gateway_mac + locator.mac + ETH_P_XIP.to_bytes(2, "big")
        now = time.monotonic()
        if locator.mtu != old.mtu:
            self.endpoint.set_mtu(locator.mtu)
        if locator.epoch != old.epoch:
            self.endpoint.move(locator.service(self.sid), now)
        self.pump()

    def _lost(self, error: XiatbError) -> None:
        if not self._closed:
            self.close()
            self._on_lost(error)

    def close(self) -> None:
        """Closes the socket and unbinds the SID; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self.stack.detach(self._ticket)
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._alarm.cancel()
        if self._pump_handle is not None:
            self._pump_handle.cancel()
        self.stack.release(self.sid)

    def counters(self) -> dict[str, Any]:
        """Frames in and out of this socket."""
        return {
            "rx": self._socket.rx,
            "tx": self._socket.tx,
            "tx_dropped": self._socket.tx_dropped,
            "rx_dropped": 0 if self._closed else self._socket.kernel_drops(),
        }
