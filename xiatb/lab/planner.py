"""From a topology to a plan: names, ports, MACs, XIDs and impairments are decided here, purely."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from xiatb.errors import InvalidFileError
from xiatb.lab.baselineplan import plan_baseline
from xiatb.lab.check import split_endpoint
from xiatb.lab.ipnetwork import IP_ROUTER, IpLink, IpNetwork
from xiatb.lab.keys import KeyRing
from xiatb.lab.linkparams import layered
from xiatb.lab.load import Topology
from xiatb.lab.plan import (
    AdPlan,
    EndPlan,
    GuestPlan,
    LinkPlan,
    NodePlan,
    Plan,
    PortPlan,
    ServicePlan,
)
from xiatb.lab.topology import GuestFile, LinkFile, NodeFile, TopologyFile
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import behind, served
from xiatb.wire.xid import SID_NS, SID_RENDEZVOUS, XID, XidType

GATEWAYS = ("router", "hypervisor")
"""Kinds of node that own an AD."""
_QEMU_OUI = bytes.fromhex("525400")


def make_plan(
    topology: Topology, *, lab: str | None = None, seed: int | None = None, data_plane: str | None = None
) -> Plan:
    """The plan of a topology. `lab` and `seed` override the file's, `data_plane` (auto, ebpf, click) what it
    says for all nodes and for single ones. Deterministic."""
    file = topology.file
    planner = _Planner(file, topology.path, lab or file.name, file.seed if seed is None else seed)
    planner.data_plane = data_plane
    return planner.plan()


class _Planner:
    """One planning; holds the intermediate tables."""

    def __init__(self, file: TopologyFile, path: Path, lab: str, seed: int) -> None:
        self.file = file
        self.path = path
        self.lab = lab
        self.seed = seed
        self.ring = KeyRing(seed, lab)
        self.data_plane: str | None = None
        """for every node, whatever the file says; None: as the file says"""
        self.ports: dict[str, dict[int, int]] = defaultdict(dict)
        """node -> port number -> link index"""
        self.ends = self._assign_ports()
        self.ip = self._ip_network()

    def plan(self) -> Plan:
        links = tuple(self._link(index, link) for index, link in enumerate(self.file.links))
        nodes = tuple(
            self._node(index, name, node, links)
            for index, (name, node) in enumerate(sorted(self.file.nodes.items()))
        )
        guests = tuple(
            self._guest(index, name, guest)
            for index, (name, guest) in enumerate(sorted(self.file.guests.items()))
        )
        used = {node.ad for node in self.file.nodes.values() if node.ad and node.kind in GATEWAYS}
        ads = sorted(used | set(self.file.ads))
        return Plan(
            lab=self.lab,
            seed=self.seed,
            topology=str(self.path),
            accel=self.file.accel,
            data_plane=self.data_plane or self.file.data_plane,
            migration_policy=self._migration_policy(),
            ads=tuple(AdPlan(ad, str(self.ring.xid(f"ad-{ad}", XidType.AD))) for ad in ads),
            nodes=nodes,
            links=links,
            guests=guests,
            names=self._names(nodes, guests),
            baseline=plan_baseline(nodes, links, guests) if self.file.baseline else None,
        )

    def _migration_policy(self) -> str:
        """Absolute path of the file that the topology names, relative to itself; "" when it names none."""
        name = self.file.migration_policy
        return str((Path(self.path).parent / name).resolve()) if name else ""

    def _assign_ports(self) -> list[list[EndPlan]]:
        """Named ports first; the others get the lowest free number, in file order."""
        parsed = [[split_endpoint(end) for end in link.endpoints] for link in self.file.links]
        for index, pair in enumerate(parsed):
            for end in pair:
                if end is not None and end[1] is not None:
                    self.ports[end[0]][end[1]] = index
        result: list[list[EndPlan]] = []
        for index, pair in enumerate(parsed):
            ends = []
            for end in pair:
                assert end is not None
                node, port = end
                if port is None:
                    taken = self.ports[node]
                    port = next(number for number in range(len(taken) + 1) if number not in taken)
                    taken[port] = index
                ends.append(EndPlan(node, f"eth{port}"))
            result.append(ends)
        return result

    def _link(self, index: int, link: LinkFile) -> LinkPlan:
        defaults = self.file.defaults.link
        a, b = self.ends[index]
        return LinkPlan(
            index=index,
            a=a,
            b=b,
            mtu=link.mtu or defaults.mtu,
            forward=layered(defaults, link, link.forward),
            backward=layered(defaults, link, link.backward),
            ip=(link.ip[0], link.ip[1]) if link.ip else None,
            impairable=defaults.impairable if link.impairable is None else link.impairable,
        )

    def _ip_network(self) -> IpNetwork:
        links = [
            IpLink(index, (self.ends[index][0].node, self.ends[index][1].node), (link.ip[0], link.ip[1]))
            for index, link in enumerate(self.file.links)
            if link.ip
        ]
        return IpNetwork(links, {name: node.kind for name, node in self.file.nodes.items()})

    def _gateway(self, ad: str | None) -> tuple[str, str]:
        """(node, address) by which an AD is reached over IP, ("", "") when it is not."""
        there = [name for name, node in sorted(self.file.nodes.items()) if node.ad == ad and ad]
        return self.ip.gateway([name for name in there if self.file.nodes[name].kind in GATEWAYS])

    def _node(self, index: int, name: str, node: NodeFile, links: tuple[LinkPlan, ...]) -> NodePlan:
        if node.kind == IP_ROUTER:
            return self._ip_router(index, name, links)
        hid = self.ring.xid(name, XidType.HID)
        ports = [self._port(name, number, links[link]) for number, link in sorted(self.ports[name].items())]
        ad = node.ad if node.kind in GATEWAYS else None
        gateway, gateway_ip = self._gateway(self._ad_of(name))
        hypervisor = node.kind == "hypervisor"
        if hypervisor:
            ports += [self._tap(name, index) for index in range(len(self.file.guests))]
        return NodePlan(
            name=name,
            index=index,
            kind=node.kind,
            hid=str(hid),
            ad=str(self.ring.xid(f"ad-{ad}", XidType.AD)) if ad else None,
            ad_name=self._ad_of(name),
            ad_public=self.ring.key(f"ad-{ad}").public.hex() if ad else None,
            ad_cert=self.ring.member(ad, hid).hex() if ad else None,
            dag=self._locator(name, name),
            ports=tuple(ports),
            seed=self.ring.number("node", name),
            click=self._click(name, node),
            migration_sid=str(self.ring.xid(f"migrated-{name}", XidType.SID)) if hypervisor else None,
            uuid=self.ring.uuid("host", name) if hypervisor else None,
            data_plane=self.data_plane or node.data_plane or self.file.data_plane,
            gateway_ip=gateway_ip,
            gateway_hid=str(self.ring.xid(gateway, XidType.HID)) if gateway not in ("", name) else "",
        )

    def _ip_router(self, index: int, name: str, links: tuple[LinkPlan, ...]) -> NodePlan:
        return NodePlan(
            name=name,
            index=index,
            kind=IP_ROUTER,
            hid="",
            ad=None,
            ad_name=None,
            ad_public=None,
            ad_cert=None,
            dag="",
            ports=tuple(self._port(name, n, links[link]) for n, link in sorted(self.ports[name].items())),
            seed=0,
            ip_routes=self.ip.routes(name),
        )

    def _port(self, node: str, number: int, link: LinkPlan) -> PortPlan:
        name = f"eth{number}"
        return PortPlan(
            name,
            self.ring.mac(node, name),
            link.mtu,
            "ip" if link.ip else "link",
            f"xiatb:{self.lab}:{node}:{name}",
            link=link.index,
            ip=self.ip.address(link.index, node),
            ip_gateway=self.ip.next_router(link.index, node),
        )

    def _tap(self, node: str, index: int) -> PortPlan:
        guest, file = sorted(self.file.guests.items())[index]
        name = f"tap{index}"
        # The same at every host: to a guest that was moved its gateway's address still holds.
        mac = self.ring.mac("taps", name)
        return PortPlan(
            name, mac, self._guest_mtu(file), "guest", f"xiatb:{self.lab}:{node}:{name}", guest=guest
        )

    def _click(self, name: str, node: NodeFile) -> str | None:
        if node.click is None:
            return None
        path = (self.path.parent / node.click).resolve()
        if not path.is_file():
            raise InvalidFileError(f"{self.path}: nodes.{name}.click: no such file: {path}")
        return str(path)

    def _ad_of(self, name: str) -> str | None:
        """A gateway's own AD; a host's AD of the file, or that of the first gateway on its links."""
        node = self.file.nodes[name]
        if node.ad is not None:
            return node.ad
        for _number, link in sorted(self.ports[name].items()):
            for end in self.ends[link]:
                other = self.file.nodes[end.node]
                if other.kind in GATEWAYS and other.ad is not None:
                    return other.ad
        return None

    def _locator(self, owner: str, at: str) -> str:
        ad = self._ad_of(at)
        hid = self.ring.xid(owner, XidType.HID)
        if ad is None:
            return str(DAG.chain(hid))
        place = DAG.host(self.ring.xid(f"ad-{ad}", XidType.AD), hid)
        _, address = self._gateway(ad)
        return str(behind(XID.parse(f"IP:{address}"), place) if address else place)

    def _guest_mtu(self, guest: GuestFile) -> int:
        return guest.mtu or self.file.defaults.guest.mtu or self.file.defaults.link.mtu

    def _guest(self, index: int, name: str, guest: GuestFile) -> GuestPlan:
        defaults = self.file.defaults.guest
        owner = f"guest-{name}"
        services = []
        for service in guest.services:
            label = service.name or service.kind
            sid = str(self.ring.xid(f"{owner}-{label}", XidType.SID))
            rates = {"memory": service.memory, "disk": service.disk}
            options = {key: value for key, value in rates.items() if value is not None}
            services.append(ServicePlan(label, service.kind, sid, options))
        return GuestPlan(
            name=name,
            index=index,
            uuid=self.ring.uuid(owner),
            on=guest.on,
            hid=str(self.ring.xid(owner, XidType.HID)),
            mac=self.ring.mac(owner, prefix=_QEMU_OUI),
            tap=f"tap{index}",
            mtu=self._guest_mtu(guest),
            memory_mib=(guest.memory or defaults.memory) // 2**20,
            vcpus=guest.vcpus or defaults.vcpus,
            dag=self._locator(owner, guest.on),
            seed=self.ring.number(owner),
            services=tuple(services),
            disk=guest.disk,
        )

    def _names(self, nodes: tuple[NodePlan, ...], guests: tuple[GuestPlan, ...]) -> dict[str, str]:
        names = {f"{node.name}.{self.lab}.xia": node.dag for node in nodes if node.dag}
        for guest in guests:
            names[f"{guest.name}.{self.lab}.xia"] = guest.dag
            for service in guest.services:
                sid = self.ring.xid(f"guest-{guest.name}-{service.name}", XidType.SID)
                names[f"{service.name}.{guest.name}.{self.lab}.xia"] = str(served(DAG.parse(guest.dag), sid))
        for label, place, sid in (
            ("ns", self.file.name_server, SID_NS),
            ("rendezvous", self.file.rendezvous, SID_RENDEZVOUS),
        ):
            gateway = place or next((node.name for node in nodes if node.kind == "router"), None)
            if gateway is not None:
                there = DAG.parse(self._locator(gateway, gateway))
                names[f"{label}.{self.lab}.xia"] = str(served(there, sid))
        return dict(sorted(names.items()))
