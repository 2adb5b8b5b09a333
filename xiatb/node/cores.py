"""Drives the sans-IO cores of join and routing: feeds them, arms their timer, carries out their effects.

There is one timer for all cores of a node, set to the earliest deadline; nothing polls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xiatb.click.packet import Packet
from xiatb.node import effects as fx
from xiatb.node.alarm import Alarm
from xiatb.node.context import write_log
from xiatb.node.control_protocol import ControlError, Json
from xiatb.wire.xid import XID

if TYPE_CHECKING:
    from xiatb.node.port import Port
    from xiatb.node.process import NodeProcess

ETH_P_XJOIN = b"\x99\x91"


class Cores:
    """What all kinds of node have in common; `HostCores` and `GatewayCores` add their protocols."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self._alarm = Alarm(node.loop, self._on_timer)
        self._actions: dict[type, Callable[[Any], None]] = {
            fx.SendJoin: self._send_join,
            fx.SetRoute: lambda effect: node.tables.set(effect.key, effect.entry),
            fx.DelRoute: lambda effect: node.tables.remove(effect.key),
            fx.SetNeighbour: lambda effect: node.tables.set_neighbour(
                effect.port, effect.hid_key, effect.mac
            ),
            fx.ForgetNeighbour: lambda effect: node.tables.forget_neighbour(effect.port, effect.hid_key),
            fx.Log: lambda effect: write_log(effect.level, effect.message),
        }

    # What a kind of node implements

    def start(self) -> None:
        """The graph runs and the ports are open: begin."""

    def link_up(self, port: Port) -> None:
        """The link of a port came up, or its MTU or MAC changed."""

    def link_down(self, port: Port) -> None:
        """The link of a port went down."""

    def notify_peers(self, port: Port) -> None:
        """The kernel re-announces itself at a port: this machine has moved."""

    def stop(self) -> None:
        """The node process ends: say good-bye where the protocols do."""

    def receive_join(self, packet: Packet) -> None:
        """A 0x9991 frame came in."""

    def receive_routing(self, packet: Packet) -> None:
        """A packet for SID_XROUTE came in."""

    def neighbours(self) -> list[Json]:
        """Neighbouring nodes, as JSON."""
        return []

    def joined(self) -> list[Json]:
        """Attached hosts, as JSON."""
        return []

    def attachment(self, hid: XID) -> Json | None:
        """How a host is attached here, None when it is not."""
        return None

    def expect(self, hid: XID, port: int) -> None:
        """Invite a host at a port until it joins."""
        raise ControlError("EOPNOTSUPP", "this node takes no joins")

    def detach(self, hid: XID) -> None:
        """Take a host off."""
        raise ControlError("EOPNOTSUPP", "this node takes no joins")

    def delegate(self, invite: bytes) -> bytes:
        """Sign a JOIN for use at the router that invites. Raises ControlError EACCES: it is not proved."""
        raise ControlError("EOPNOTSUPP", "this node joins nobody")

    def stats(self) -> Json:
        """Counters of the cores."""
        return {}

    def _take_effects(self) -> list[fx.Effect]:
        return []

    def _tick(self, now: float) -> None:
        """Let every core do what is due."""

    def _next_deadline(self) -> float | None:
        return None

    # The drive

    def run(self) -> None:
        """Carries out what the cores ask for, until they ask for nothing, and sets the timer."""
        while True:
            wanted = self._take_effects()
            if not wanted:
                break
            for effect in wanted:
                action = self._actions.get(type(effect))
                if action is not None:
                    action(effect)
        self._alarm.set(self._next_deadline())

    def _on_timer(self) -> None:
        self._tick(time.monotonic())
        self.run()

    def close(self) -> None:
        """Stops the timer."""
        self._alarm.cancel()

    def _send_join(self, effect: fx.SendJoin) -> None:
        port = self.node.ports[effect.port]
        frame = bytearray(effect.dst_mac + port.mac + ETH_P_XJOIN + effect.payload)
        self.node.inject(f"lc{effect.port}/inject", Packet(frame, port=effect.port))
