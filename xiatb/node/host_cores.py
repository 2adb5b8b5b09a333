"""Join of a host or guest: what its locator means for routes and applications."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xiatb.click.packet import Packet
from xiatb.errors import XiatbError
from xiatb.node import effects as fx
from xiatb.node.control_protocol import ControlError, Json
from xiatb.node.cores import Cores
from xiatb.node.join import HostJoin
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import XID, XidType

if TYPE_CHECKING:
    from xiatb.node.port import Port
    from xiatb.node.process import NodeProcess

DEFAULT_TYPES = (XidType.AD, XidType.HID, XidType.IP)
"""What a host sends to its router when it knows no better (xia-core XIAEndHost)."""


class HostCores(Cores):
    """One `HostJoin` and the consequences of what it says."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(node)
        links = {port.index: port.mac for port in node.ports if port.role == "link"}
        self._join = HostJoin(node.key, node.rng, ports=links)
        self._ad: XID | None = None
        self._actions[fx.Locator] = self._located
        self._actions[fx.LocatorLost] = self._lost

    def link_up(self, port: Port) -> None:
        """Looks for a router at once."""
        if port.role == "link":
            self._join.set_port(port.index, port.mac)
            self._join.kick(port.index, time.monotonic())
            self.run()

    def notify_peers(self, port: Port) -> None:
        """This machine has been moved: as if its link had come up."""
        self.link_up(port)

    def link_down(self, port: Port) -> None:
        """An attachment at this port is lost."""
        self._join.link_down(port.index, time.monotonic())
        self.run()

    def stop(self) -> None:
        """Takes leave of the router."""
        self._join.leave(time.monotonic())
        self.run()

    def receive_join(self, packet: Packet) -> None:
        """A beacon, an answer or a leave of a router."""
        data = packet.data
        self._join.receive(packet.port, bytes(data[6:12]), memoryview(data)[14:], time.monotonic())
        self.run()

    def delegate(self, invite: bytes) -> bytes:
        """Signs a JOIN for the router of `invite`, where this machine is going to be moved."""
        try:
            return self._join.delegate(invite)
        except XiatbError as error:
            raise ControlError("EACCES", error.message) from error

    def neighbours(self) -> list[Json]:
        """The router that this host is joined to."""
        at = self._join.attachment
        if at is None:
            return []
        return [
            {
                "hid": str(at.member.hid),
                "ad": str(at.member.ad),
                "port": at.port,
                "mac": at.mac.hex(":"),
                "kind": "router",
            }
        ]

    def stats(self) -> Json:
        """Counters of the join."""
        return {"join": dict(self._join.stats)}

    def _take_effects(self) -> list[fx.Effect]:
        return self._join.effects()

    def _tick(self, now: float) -> None:
        self._join.tick(now)

    def _next_deadline(self) -> float | None:
        return self._join.next_deadline()

    def _located(self, effect: fx.Locator) -> None:
        tables = self.node.tables
        if self._ad is not None and self._ad != effect.ad:
            tables.remove(self._ad.key)
        self._ad = effect.ad
        tables.set(effect.ad.key, Entry(SELF))
        uplink = Entry(effect.port, effect.router_hid.key)
        for kind in DEFAULT_TYPES:
            tables.set_default(kind, uplink)
        tables.set(effect.router_hid.key, uplink)
        at = effect.ad, effect.router_hid, effect.port, effect.router_mac, effect.mtu
        self.node.located(*at, gateway_ip=effect.gateway_ip)

    def _lost(self, effect: fx.LocatorLost) -> None:
        for kind in DEFAULT_TYPES:
            self.node.tables.set_default(kind, None)
        self.node.lost()
