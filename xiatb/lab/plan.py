"""The plan of a lab: everything that `apply` will make, as plain sorted data.

A plan is a pure function of the topology and the seed: two calls give the same plan, byte for byte in JSON.
It holds no private keys (they are derived again from the seed when the lab is made).
Units: rates bit/s, times nanoseconds, shares parts per million, sizes bytes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from xiatb.errors import WireError
from xiatb.lab.baseline import Baseline
from xiatb.lab.paths import netns_name
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import behind
from xiatb.wire.xid import XID


@dataclass(frozen=True)
class Impairment:
    """What happens to frames in one direction of a link."""

    rate: int | None = None
    """bit/s of Ethernet frames; None: not shaped."""
    delay: int = 0
    jitter: int = 0
    """uniformly distributed around the delay, +- this many nanoseconds; frames may overtake each other."""
    loss: int = 0
    """share of frames lost at random; with `burst`, in runs."""
    burst: int = 0
    """mean number of frames lost in a row (the simple Gilbert model); 0 and 1: independent losses."""
    gemodel: tuple[int, int, int, int] | None = None
    """Gilbert-Elliott loss in place of `loss`: see `loss_chain`."""
    duplicate: int = 0
    reorder: int = 0
    """share of frames that skip the delay."""
    queue: int = 262144
    """bytes that wait for the shaper before frames are dropped at the tail."""

    def __post_init__(self) -> None:
        """JSON has lists where we have tuples."""
        if self.gemodel is not None:
            object.__setattr__(self, "gemodel", tuple(self.gemodel))

    @property
    def needs_delay_line(self) -> bool:
        """True when something other than rate is asked for."""
        return bool(
            self.delay or self.jitter or self.loss or self.gemodel or self.duplicate or self.reorder
        )

    @property
    def loss_chain(self) -> tuple[float, float, float, float] | None:
        """Bursty loss as a Markov chain of two states; None when losses are independent.

        Shares (0 to 1) for each frame: good to bad, bad to good, lost while bad, lost while good (p, r, 1-h,
        1-k of tc-netem(8)). `burst` b with `loss` l is r = 1/b, p = r l/(1-l), 1-h = 1, 1-k = 0."""
        if self.gemodel is not None:
            p, r, bad, good = (share / 1e6 for share in self.gemodel)
            return p, r, bad, good
        if self.burst <= 1 or not 0 < self.loss < 1_000_000:
            return None
        back = 1 / self.burst
        share = self.loss / 1e6
        return back * share / (1 - share), back, 1.0, 0.0

    @property
    def mean_loss(self) -> float:
        """Share of frames lost in the long run, 0 to 1."""
        chain = self.loss_chain
        if chain is None:
            return self.loss / 1e6
        p, r, bad, good = chain
        return (p * bad + r * good) / (p + r) if p + r else good


@dataclass(frozen=True)
class PortPlan:
    """One interface of a node process, in the order in which the Click graph numbers them."""

    name: str
    mac: str
    mtu: int
    role: str
    """"internal" (xia0r), "link", "guest" (a tap) or "ip" (a link of an IP network)."""
    altname: str
    """readable, unique mark of ownership on the interface."""
    link: int | None = None
    guest: str | None = None
    ip: str = ""
    """IPv4 address with prefix length, on a link of an IP network; role "ip"."""
    ip_gateway: str = ""
    """address of the IP router at the other end."""


@dataclass(frozen=True)
class NodePlan:
    """One Mininet node with its node process; an "ip_router" has none, nor HID, key or address."""

    name: str
    index: int
    kind: str
    hid: str
    ad: str | None
    """its AD's XID ("AD:..."): own AD of routers and hypervisors; None for hosts, which join."""
    ad_name: str | None
    ad_public: str | None
    """hex of the AD's raw public key; None for hosts."""
    ad_cert: str | None
    """hex of the AD's signature that this HID is a member; None for hosts."""
    dag: str
    """expected locator (RE form); hosts': in the AD of the first router that they are linked to."""
    ports: tuple[PortPlan, ...]
    seed: int
    click: str | None = None
    """a Click file of the user's own for this node, absolute."""
    migration_sid: str | None = None
    """SID of the migration daemon, hypervisors only; key in keys/migrated-NAME.pem."""
    uuid: str | None = None
    """hypervisors only: libvirt's host_uuid."""
    data_plane: str = "auto"
    """"auto", "ebpf" or "click": what forwards."""
    gateway_ip: str = ""
    """IPv4 address by which its AD is reached over IP; empty: it is not."""
    gateway_hid: str = ""
    """HID of the AD's router that has this address; empty: the node itself."""
    ip_routes: tuple[tuple[str, str], ...] = ()
    """(network, next hop) that the kernel of an "ip_router" knows."""

    def at(self, hid: XID) -> DAG:
        """The locator of a host that is attached here. Raises WireError when this node has no AD."""
        if self.ad is None:
            raise WireError(f"{self.name} has no AD")
        place = DAG.host(XID.parse(self.ad), hid)
        return behind(XID.parse(f"IP:{self.gateway_ip}"), place) if self.gateway_ip else place


@dataclass(frozen=True)
class EndPlan:
    """One end of a link."""

    node: str
    port: str


@dataclass(frozen=True)
class LinkPlan:
    """A veth pair between two nodes; `forward` holds from `a` to `b`."""

    index: int
    a: EndPlan
    b: EndPlan
    mtu: int
    forward: Impairment
    backward: Impairment
    ip: tuple[str, str] | None = None
    """addresses with prefix length of the ends `a` and `b`, when this link is of an IP network."""
    impairable: bool = True
    """made with a middle (see `wire`), so that delay and the like can be set while the lab is up."""

    @property
    def name(self) -> str:
        """Such as "r1:eth0--h1:eth0"; unique in a lab."""
        return f"{self.a.node}:{self.a.port}--{self.b.node}:{self.b.port}"

    @property
    def needs_delay_line(self) -> bool:
        """True when something other than rate is asked for in some direction."""
        return self.forward.needs_delay_line or self.backward.needs_delay_line


@dataclass(frozen=True)
class ServicePlan:
    """A service in a guest; key in keys/guest-GUEST-NAME.pem."""

    name: str
    kind: str
    sid: str
    options: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GuestPlan:
    """A QEMU guest. Its tap exists under the same name on every hypervisor."""

    name: str
    index: int
    uuid: str
    on: str
    hid: str
    mac: str
    tap: str
    mtu: int
    memory_mib: int
    vcpus: int
    dag: str
    """expected locator on its first host (RE form)."""
    seed: int
    services: tuple[ServicePlan, ...] = ()
    disk: str = "private"
    """"private": a copy of the image on its hypervisor; "overlay": what it writes, on top of the image;
    "shared": a copy that all hypervisors reach."""


@dataclass(frozen=True)
class AdPlan:
    """An administrative domain."""

    name: str
    xid: str


@dataclass(frozen=True)
class Plan:
    """A whole lab."""

    lab: str
    seed: int
    topology: str
    """absolute path of the file it was made from."""
    accel: str
    data_plane: str
    ads: tuple[AdPlan, ...]
    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    guests: tuple[GuestPlan, ...]
    names: dict[str, str]
    """name -> DAG (RE form): NODE.LAB.xia, GUEST.LAB.xia and SERVICE.GUEST.LAB.xia."""
    migration_policy: str = ""
    """absolute path of the policy file of the migration daemons, "" for none."""
    baseline: Baseline | None = None
    """the IPv4 network beside XIA, when the topology asks for one."""

    def node(self, name: str) -> NodePlan:
        """Raises KeyError when there is none of that name."""
        return {node.name: node for node in self.nodes}[name]

    def guest(self, name: str) -> GuestPlan:
        """Raises KeyError when there is none of that name."""
        return {guest.name: guest for guest in self.guests}[name]

    def kind(self, *kinds: str) -> list[NodePlan]:
        """Nodes of the given kinds, in order."""
        return [node for node in self.nodes if node.kind in kinds]

    @property
    def xia_nodes(self) -> list[NodePlan]:
        """All nodes but those that know IP alone, which have no node process."""
        return [node for node in self.nodes if node.kind != "ip_router"]

    def netns(self, node: str) -> str:
        """Name of the node's namespace under /run/netns."""
        return netns_name(self.lab, node)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `Plan.from_json` is its inverse."""
        return dataclasses.asdict(self)

    def dumps(self) -> str:
        """The same as text; equal plans give equal text."""
        return json.dumps(self.to_json(), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The plan that `to_json` gave. Raises KeyError or TypeError on anything else."""
        return cls(
            lab=data["lab"],
            seed=data["seed"],
            topology=data["topology"],
            accel=data["accel"],
            data_plane=data["data_plane"],
            ads=tuple(AdPlan(**ad) for ad in data["ads"]),
            nodes=tuple(_node(node) for node in data["nodes"]),
            links=tuple(_link(link) for link in data["links"]),
            guests=tuple(_guest(guest) for guest in data["guests"]),
            names=dict(data["names"]),
            migration_policy=data.get("migration_policy", ""),
            baseline=Baseline.from_json(data.get("baseline")),
        )


def _node(data: dict[str, Any]) -> NodePlan:
    routes = tuple((network, hop) for network, hop in data["ip_routes"])
    ports = tuple(PortPlan(**port) for port in data["ports"])
    return NodePlan(**{**data, "ports": ports, "ip_routes": routes})


def _link(data: dict[str, Any]) -> LinkPlan:
    ends = {key: EndPlan(**data[key]) for key in ("a", "b")}
    directions = {key: Impairment(**data[key]) for key in ("forward", "backward")}
    ip = None if data["ip"] is None else tuple(data["ip"])
    return LinkPlan(**{**data, **ends, **directions, "ip": ip})


def _guest(data: dict[str, Any]) -> GuestPlan:
    return GuestPlan(**{**data, "services": tuple(ServicePlan(**service) for service in data["services"])})
