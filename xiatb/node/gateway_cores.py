"""Joins and routing of a router or hypervisor: attached hosts become routes and link-state news.

Routing messages travel as xia-core's do (xia.md 3.3, 3.8): destination `FID:ff..ff -> SID_XROUTE`, a
FID extension header, XDGRAM; they never leave the link.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xiatb.click.packet import Packet
from xiatb.errors import WireError
from xiatb.node import effects as fx
from xiatb.node.control_plane import ControlPlane, ControlPort
from xiatb.node.control_protocol import ControlError, Json
from xiatb.node.cores import Cores
from xiatb.node.handover import Handover
from xiatb.node.join import JoinConfig
from xiatb.node.routing import RoutingConfig
from xiatb.wire import extension, xdgram, xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import BROADCAST_FID, SID_XROUTE, XID, XidType

if TYPE_CHECKING:
    from xiatb.node.port import Port
    from xiatb.node.process import NodeProcess

XROUTE = DAG.chain(BROADCAST_FID, SID_XROUTE)
_BROADCAST = b"\xff" * 6
_ETH_P_XIP = xip.ETH_P_XIP.to_bytes(2, "big")


class GatewayCores(Cores):
    """One `ControlPlane`: joins on every port, routing on the links."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(node)
        config = node.config
        if config.ad is None or config.ad_public is None or config.ad_cert is None:
            raise ControlError("EINVAL", f"{config.name}: a {config.kind} needs an AD")
        self._ad = XID.parse(config.ad)
        self._plane = ControlPlane(
            node.key,
            self._ad,
            bytes.fromhex(config.ad_public),
            bytes.fromhex(config.ad_cert),
            [
                ControlPort(port.index, port.mtu, guest=port.role == "guest")
                for port in node.ports[1:]
                if port.role != "ip"
            ],
            node.rng,
            hypervisor=config.kind == "hypervisor",
            gateway_ip=node.gateway_ip,
            join_config=JoinConfig().paced(config.pace),
            routing_config=RoutingConfig().paced(config.pace),
        )
        self.handover = Handover(self, self._plane, self._ad)
        self._flood_seq = node.rng.getrandbits(32)
        self._source = DAG.host(self._ad, node.hid)
        self._malformed = 0
        self._ip_gateway = XID.parse(config.gateway_hid).key if config.gateway_hid else b""
        self._actions[fx.SetRoute] = self._set_route
        self._actions[fx.DelRoute] = self._del_route
        self._actions[fx.SendRouting] = self._send_routing
        self._actions[fx.HostJoined] = self._host_joined
        self._actions[fx.HostLeft] = node.host_left

    def start(self) -> None:
        """Own AD, HID and 4IDs are here; what goes to other 4IDs leaves by the IP port, if there is one."""
        self.node.tables.set(self._ad.key, Entry(SELF))
        for index, port in enumerate(self.node.config.ports, 1):
            if port.role == "ip":
                self.node.tables.set(XID.parse(f"IP:{port.ip.partition('/')[0]}").key, Entry(SELF))
                self.node.tables.set_default(XidType.IP, Entry(index))

    def _set_route(self, effect: fx.SetRoute) -> None:
        """The AD's IP gateway is where its HID is."""
        self.node.tables.set(effect.key, effect.entry)
        if effect.key == self._ip_gateway:
            self.node.tables.set_default(XidType.IP, effect.entry)

    def _del_route(self, effect: fx.DelRoute) -> None:
        self.node.tables.remove(effect.key)
        if effect.key == self._ip_gateway:
            self.node.tables.set_default(XidType.IP, None)

    def _host_joined(self, effect: fx.HostJoined) -> None:
        self.node.host_joined(effect)
        self.handover.joined(effect.hid, effect.port)

    def link_up(self, port: Port) -> None:
        """Beacons at once, then at intervals."""
        if port.role != "ip":
            self._plane.link_up(port.index, time.monotonic())
            self.run()

    def link_down(self, port: Port) -> None:
        """No beacons while the link is down."""
        if port.role != "ip":
            self._plane.link_down(port.index, time.monotonic())
            self.run()

    def stop(self) -> None:
        """Tells hosts to look for another router."""
        self._plane.close(time.monotonic())
        self.run()

    def receive_join(self, packet: Packet) -> None:
        """A solicitation, join or leave of a host."""
        data = packet.data
        self._plane.receive_join(packet.port, bytes(data[6:12]), memoryview(data)[14:], time.monotonic())
        self.run()
        self.handover.heard()

    def receive_routing(self, packet: Packet) -> None:
        """A packet for SID_XROUTE. Routing messages do not cross IP networks."""
        if packet.port > 0 and self.node.ports[packet.port].role == "ip":
            self._malformed += 1
            return
        try:
            header = xip.parse(packet.data, packet.net)
            kinds, start = extension.chain(header.nxt, packet.data, header.payload_off, header.end)
        except WireError:
            self._malformed += 1
            return
        if not any(found.kind == xip.NXT_XDGRAM for found in kinds):
            self._malformed += 1
            return
        payload = memoryview(packet.data)[start : header.end]
        self._plane.receive_routing(packet.port, payload, time.monotonic())
        self.run()

    def _send_routing(self, effect: fx.SendRouting) -> None:
        self._flood_seq += 1
        fid = extension.pack_fid(xip.NXT_XDGRAM, self._flood_seq, int(time.time()))
        packet = xip.build(xip.NXT_FID, XROUTE, self._source, fid + xdgram.pack(effect.payload))
        frame = bytearray(_BROADCAST + self.node.ports[effect.port].mac + _ETH_P_XIP + packet)
        self.node.inject(f"lc{effect.port}/inject", Packet(frame, port=effect.port))

    def expect(self, hid: XID, port: int) -> None:
        """Attaches a host at a port by its delegation or, without one, invites it at once, until it joins."""
        if not self.handover.arrive(hid, port):
            self._plane.expect(hid, port, time.monotonic())
            self.run()

    def detach(self, hid: XID) -> None:
        """Takes a host off."""
        self.handover.drop(hid)
        self._plane.detach(hid, time.monotonic())
        self.run()

    def joined(self) -> list[Json]:
        """Attached hosts: `{"hid", "port", "port_name", "mac", "seq", "away"}`."""
        return [found for host in self._plane.join.hosts.values() if (found := self.attachment(host.hid))]

    def attachment(self, hid: XID) -> Json | None:
        """How a host is attached here, None when it is not."""
        host = self._plane.join.hosts.get(hid.id)
        if host is None:
            return None
        return {
            "hid": str(hid),
            "port": host.port,
            "port_name": self.node.ports[host.port].label,
            "mac": host.mac.hex(":"),
            "seq": host.seq,
            "away": self.handover.away(hid),
        }

    def neighbours(self) -> list[Json]:
        """Neighbouring routers and attached hosts: `{"hid", "kind", "port", ...}`."""
        routers = self._plane.routing.status(time.monotonic())["neighbours"]
        return [
            *({**found, "kind": "router"} for found in routers),
            *({**host, "kind": "host"} for host in self.joined()),
        ]

    def stats(self) -> Json:
        """Counters of join and routing."""
        status = self._plane.routing.status(time.monotonic())
        del status["neighbours"]
        return {
            "join": dict(self._plane.join.stats),
            "handover": dict(self.handover.stats),
            "routing": {**status, "packets_malformed": self._malformed},
        }

    def close(self) -> None:
        """Stops the timers."""
        self.handover.close()
        super().close()

    def _take_effects(self) -> list[fx.Effect]:
        return self._plane.effects()

    def _tick(self, now: float) -> None:
        self._plane.tick(now)

    def _next_deadline(self) -> float | None:
        return self._plane.next_deadline()
