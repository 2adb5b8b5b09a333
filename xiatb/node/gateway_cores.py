"""Joins and routing of a router or hypervisor: attached hosts become routes and link-state news."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xiatb.click.packet import Packet
from xiatb.node import effects as fx
from xiatb.node.control_protocol import ControlError, Json
from xiatb.node.cores import Cores
from xiatb.node.join import RouterJoin
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import XID

if TYPE_CHECKING:
    from xiatb.node.port import Port
    from xiatb.node.process import NodeProcess


class GatewayCores(Cores):
    """One `RouterJoin` on every port and one `LinkState` on the links."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(node)
        config = node.config
        if config.ad is None or config.ad_public is None or config.ad_cert is None:
            raise ControlError("EINVAL", f"{config.name}: a {config.kind} needs an AD")
        self._ad = XID.parse(config.ad)
        self._join = RouterJoin(
            node.key, self._ad, bytes.fromhex(config.ad_public), bytes.fromhex(config.ad_cert), node.rng
        )
        self._actions[fx.HostJoined] = self._host_joined
        self._actions[fx.HostLeft] = self._host_left

    def start(self) -> None:
        """Own AD and HID are here."""
        self.node.tables.set(self._ad.key, Entry(SELF))

    def link_up(self, port: Port) -> None:
        """Beacons at once, then at intervals."""
        self._join.link_up(port.index, time.monotonic(), mtu=port.mtu)
        self.run()

    def link_down(self, port: Port) -> None:
        """No beacons while the link is down."""
        self._join.link_down(port.index, time.monotonic())
        self.run()

    def stop(self) -> None:
        """Tells hosts to look for another router."""
        self._join.close(time.monotonic())
        self.run()

    def receive_join(self, packet: Packet) -> None:
        """A solicitation, join or leave of a host."""
        data = packet.data
        self._join.receive(packet.port, bytes(data[6:12]), memoryview(data)[14:], time.monotonic())
        self.run()

    def expect(self, hid: XID, port: int) -> None:
        """Invites a host at a port at once, until it joins there."""
        self._join.expect(hid, port, time.monotonic())
        self.run()

    def detach(self, hid: XID) -> None:
        """Takes a host off."""
        self._join.detach(hid, time.monotonic())
        self.run()

    def joined(self) -> list[Json]:
        """Attached hosts: `{"hid", "port", "port_name", "mac", "seq"}`."""
        return [found for host in self._join.hosts.values() if (found := self.attachment(host.hid))]

    def attachment(self, hid: XID) -> Json | None:
        """How a host is attached here, None when it is not."""
        host = self._join.hosts.get(hid.id)
        if host is None:
            return None
        return {
            "hid": str(hid),
            "port": host.port,
            "port_name": self.node.ports[host.port].label,
            "mac": host.mac.hex(":"),
            "seq": host.seq,
        }

    def stats(self) -> Json:
        """Counters of join and routing."""
        return {"join": dict(self._join.stats)}

    def _take_effects(self) -> list[fx.Effect]:
        return self._join.effects()

    def _tick(self, now: float) -> None:
        self._join.tick(now)

    def _next_deadline(self) -> float | None:
        return self._join.next_deadline()

    def _host_joined(self, effect: fx.HostJoined) -> None:
        self.node.tables.set(effect.hid.key, Entry(effect.port, effect.hid.key))
        self.node.host_joined(effect)

    def _host_left(self, effect: fx.HostLeft) -> None:
        self.node.tables.remove(effect.hid.key)
        self.node.host_left(effect)
