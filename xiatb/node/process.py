"""One node of a lab: the process that owns a network namespace's XIA traffic.

`NodeProcess` puts the parts together: ports, the Click graph, join and routing, the control sockets.
It runs in whatever network namespace it was started in.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from xiatb.click.errors import HandlerError
from xiatb.click.graph import Router
from xiatb.click.packet import Packet
from xiatb.identity.keys import KeyPair
from xiatb.node import rtnetlink
from xiatb.node.bindings import Bindings
from xiatb.node.click_control import ClickControl
from xiatb.node.config import INTERNAL_APP, INTERNAL_NODE, MIN_MTU, NodeConfig
from xiatb.node.context import NodeContext, write_log
from xiatb.node.control import ControlServer, Session
from xiatb.node.control_protocol import Json
from xiatb.node.cores import Cores
from xiatb.node.data_plane import DataPlane
from xiatb.node.effects import HostJoined, HostLeft
from xiatb.node.graph import build_router
from xiatb.node.internal_link import ensure_internal_link
from xiatb.node.join_messages import NO_IP
from xiatb.node.locator import BROADCAST_MAC, NodeLocator
from xiatb.node.names import Names
from xiatb.node.operations import Operations
from xiatb.node.pinger import Pinger
from xiatb.node.port import Port
from xiatb.node.services import Services
from xiatb.node.tables import Tables
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import behind
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import XID, XidType, four_id

BOUND = Entry(SELF, deliver=0)
"""Route of a bound SID: deliver at port 0, the internal link."""


class NodeProcess:
    """All of one node. `start` brings it up in the present namespace, `close` ends it."""

    def __init__(self, config: NodeConfig, loop: asyncio.AbstractEventLoop) -> None:
        """Reads the key. Raises IdentityError."""
        self.config = config
        self.loop = loop
        self.started = time.monotonic()
        self.key = KeyPair.from_pem_file(config.hid_key)
        self.hid = self.key.xid(XidType.HID)
        self.rng = random.Random(f"{config.seed}/{config.lab}/{config.name}")
        self.ports = self._make_ports()
        self.locator: NodeLocator | None = None
        self.names = Names(config.names)
        self.gateway_ip = bytes(map(int, config.gateway_ip.split("."))) if config.gateway_ip else NO_IP
        self.bindings = Bindings(self.hid, self._binding_changed)
        self.context = NodeContext(self.hid.key, self.rng, {port.name: port for port in self.ports}, loop)
        self.pinger = Pinger(self._send_own, self._source, self.rng)
        self.services = Services(self)
        self.operations = Operations(self)
        self.control = ControlServer(config.control_path, self.operations.table(), self._session_gone)
        self._epoch = 0
        self._monitor: rtnetlink.LinkMonitor | None = None
        self._closers: list[Callable[[], None]] = []
        self.router: Router
        self.tables: Tables
        self.data_plane: DataPlane
        self.cores: Cores

    def _make_ports(self) -> list[Port]:
        ports = [Port(0, INTERNAL_NODE, "internal", 1500, self.loop)]
        for index, item in enumerate(self.config.ports, 1):
            ports.append(Port(index, item.device, item.role, item.mtu, self.loop, label=item.name))
        return ports

    # Life

    async def start(self) -> None:
        """Opens ports, builds the graph, starts the protocols, listens. Raises XiatbError."""
        self._monitor = rtnetlink.LinkMonitor()
        self._closers.append(self._monitor.close)
        if self.config.attach == "xia0":
            ensure_internal_link(max((port.mtu for port in self.ports), default=1500))
        for port in self.ports:
            self._closers.append(port.close)
            if port.index or self.config.attach == "xia0":
                port.update(rtnetlink.get_link(port.name))
        self.router = build_router(self.config, self.ports)
        self.tables = Tables(self.router)
        self.router.initialize(self.context)
        self._closers.append(self.router.cleanup)
        self.tables.set(self.hid.key, Entry(SELF))
        self.data_plane = DataPlane(self.config, self.ports, self.router)
        self._closers.append(self.data_plane.close)
        self.data_plane.start()
        self.cores = self._make_cores()
        self._closers.append(self.cores.close)
        self.context.serve("xcmp", lambda packet: self.pinger.receive(packet.xip))
        self.context.serve("join", self.cores.receive_join)
        self.context.serve("routing", self.cores.receive_routing)
        self.services.start()
        self._closers.append(self.services.close)
        if self.config.ad is not None and self.config.is_gateway:
            mtu = min((port.mtu for port in self.ports if port.role == "link"), default=1500)
            self.located(XID.parse(self.config.ad), self.hid, 0, BROADCAST_MAC, mtu, self.gateway_ip)
        await self.control.start()
        self._closers.append(self.control.close)
        handlers = ClickControl(self.config.click_path, self.router)
        await handlers.start()
        self._closers.append(handlers.close)
        self.loop.add_reader(self._monitor.fileno(), self._links_changed)
        self.cores.start()
        for port in self.ports[1:]:
            if port.up:
                self.cores.link_up(port)
        write_log(
            "info", f"{self.config.kind} {self.config.name} {self.hid} runs with {len(self.ports)} ports"
        )

    def close(self) -> None:
        """Says good-bye to the neighbours and lets go of everything."""
        if hasattr(self, "cores"):
            self.cores.stop()
        if self._monitor is not None:
            self.loop.remove_reader(self._monitor.fileno())
        for closer in reversed(self._closers):
            closer()
        self._closers.clear()

    def _make_cores(self) -> Cores:
        # Imported here, as an emulated guest takes a second for the routing that it does not run.
        if self.config.is_gateway:
            from xiatb.node.gateway_cores import GatewayCores

            return GatewayCores(self)
        from xiatb.node.host_cores import HostCores

        return HostCores(self)

    # Links

    def _links_changed(self) -> None:
        if self._monitor is None:
            return
        changes, lost = self._monitor.drain()
        by_name = {port.name: port for port in self.ports}
        if lost:
            write_log("warning", "link events were lost: looking at every port")
            found = {port: rtnetlink.get_link(port.name) for port in self.ports}
            changes = [link for link in found.values() if link is not None]
            for missing in (port for port, link in found.items() if link is None and port.up):
                self._link_gone(missing)
        for link in changes:
            port = by_name.get(link.name)
            if port is None or (port.index == 0 and self.config.attach == "direct"):
                continue
            if not link.deleted:
                self._link_changed(port, link)
            elif link.ifindex == port.ifindex:
                self._link_gone(port)

    def _link_gone(self, port: Port) -> None:
        port.update(None)
        self.data_plane.port_changed(port)
        write_log("info", f"port {port.index} ({port.name}) is gone")
        if port.index:
            self.cores.link_down(port)

    def _link_changed(self, port: Port, link: rtnetlink.Link) -> None:
        before = (port.up, port.mac, port.mtu, port.ifindex)
        port.update(link)
        if before[1] != port.mac:
            self.tables.set_own_mac(port.index, port.mac)
        if before[2] != port.mtu:
            self.tables.set_mtu(port.index, port.mtu)
        self.data_plane.port_changed(port)
        if port.index == 0:
            return
        if before[0] and not port.up:
            write_log("info", f"port {port.index} ({port.name}) is down")
            self.cores.link_down(port)
        elif port.up and before != (True, port.mac, port.mtu, port.ifindex):
            write_log("info", f"port {port.index} ({port.name}) is up, MTU {port.mtu}")
            self.cores.link_up(port)
        if link.event == rtnetlink.NOTIFY_PEERS and port.up:
            write_log("info", f"port {port.index} ({port.name}): the kernel announces a move")
            self.cores.notify_peers(port)

    # Packets of the node itself

    def inject(self, where: str, packet: Packet) -> None:
        """Puts a packet into the graph; a graph without that entrance is logged, not fatal."""
        try:
            self.router.inject(where, packet)
        except HandlerError as error:
            write_log("warning", error.message)

    def _send_own(self, xip: bytes) -> None:
        self.inject("xip", Packet.from_xip(xip))

    def _source(self) -> DAG | None:
        return None if self.locator is None else self.locator.dag

    # Location

    def located(
        self, ad: XID, router_hid: XID, port: int, gateway_mac: bytes, mtu: int, gateway_ip: bytes = NO_IP
    ) -> None:
        """This node is now at `ad`, behind `router_hid` at `port`: tell graph and applications.

        `gateway_ip`: 4 bytes, where the AD is reached over IP; zeros: it is not."""
        dag = DAG.host(ad, self.hid)
        direct = self.config.attach == "direct"
        uplink = self.ports[port]
        new = NodeLocator(
            dag=dag if gateway_ip == NO_IP else behind(four_id(gateway_ip), dag),
            ad=ad,
            hid=self.hid,
            router_hid=router_hid,
            mtu=max(MIN_MTU, min(mtu, uplink.mtu) if port else mtu),
            attach=self.config.attach,
            ifname=uplink.name if direct else INTERNAL_APP,
            gateway_mac=gateway_mac if direct else BROADCAST_MAC,
            mac=uplink.mac if direct else self.ports[0].mac,
            epoch=self._epoch,
            rendezvous=self.services.rendezvous(),
        )
        # Told even when nothing has changed: after a new join peers should hear of us at once, since
        # whatever was sent meanwhile is lost, and a move makes them forget their back-off.
        self._epoch += 1
        self.locator = new._replace(epoch=self._epoch)
        self.context.dag = new.dag
        write_log("info", f"located at {new.dag}, MTU {new.mtu}")
        self.control.publish({"event": "locator", **self.locator.to_json()})
        self.services.located()

    def lost(self) -> None:
        """This node has no router any more; sockets keep their addresses until the next one."""
        self.locator = None
        self.context.dag = None
        write_log("info", "no router")
        self.control.publish({"event": "locator_lost", "hid": str(self.hid)})

    def locator_json(self) -> Json:
        """The locator as JSON; null fields but `hid` while there is none."""
        if self.locator is not None:
            return self.locator.to_json()
        return {**dict.fromkeys(NodeLocator._fields), "hid": str(self.hid), "epoch": self._epoch}

    def host_joined(self, effect: HostJoined) -> None:
        """A host has joined here: tell whoever waits for it."""
        write_log("info", f"{effect.hid} joined at port {effect.port} ({self.ports[effect.port].label})")
        self.operations.host_joined(effect.hid)
        self.control.publish(
            {"event": "guest_joined", "hid": str(effect.hid), "port": effect.port, "seq": effect.seq}
        )

    def host_left(self, effect: HostLeft) -> None:
        """A host is no longer attached here."""
        write_log("info", f"{effect.hid} left: {effect.reason}")
        self.control.publish({"event": "guest_left", "hid": str(effect.hid), "reason": effect.reason})

    # Applications

    def _binding_changed(self, key: bytes, bound: bool) -> None:
        if self.config.attach == "direct":
            for port in self.ports[1:]:
                port.exclude(self.bindings.sids())
        elif bound:
            self.tables.set(key, BOUND)
        else:
            self.tables.remove(key)

    def _session_gone(self, session: Session) -> None:
        self.bindings.release(session)

    def stats(self) -> Json:
        """Counters of the node's parts."""
        self.data_plane.refresh()
        return {
            **self.cores.stats(),
            "services": self.services.stats(),
            "xcmp_malformed": self.pinger.malformed,
            "strays": dict(self.context.strays),
            "kernel": {port.label: port.counters() for port in self.ports},
        }
