"""Making a lab out of its plan: files, nodes, links, impairments, private mounts, node processes.

Each method is one step of `xiatb up`, in the order of `build`. Before every act its intent is in the journal,
so that an interruption at any point leaves what `teardown` can find.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.lab import baselinenet, iprouting, namespaces, netlink, priority, private, wire
from xiatb.lab.context import Context, node_environment
from xiatb.lab.forkserver import ForkServer
from xiatb.lab.ipnetwork import IP_ROUTER
from xiatb.lab.keys import write_keys
from xiatb.lab.links import Links, needs_middles
from xiatb.lab.mininet_net import LabNet
from xiatb.lab.paths import NETNS_ROOT, netns_name
from xiatb.lab.plan import NodePlan, Plan
from xiatb.lab.process import netns_inode
from xiatb.lab.readiness import ReadyPipe
from xiatb.lab.state import NodeState
from xiatb.node.config import MAX_PACE, NodeConfig, PortConfig

NODE_READY = 30.0
SHELLS_AT_ONCE = 4
PACE_ROUTERS = 25
"""So many routers, HELLOs and beacons once a second cost what a host can spare; more slow them down."""


class Builder:
    """Builds one lab. `build` is called once, from one thread."""

    def __init__(self, context: Context, net: LabNet) -> None:
        self.context = context
        self.plan = context.plan
        self.paths = context.paths
        self.net = net

    def files(self) -> None:
        """Directories, keys, names and node configurations; the state directory itself is there."""
        paths, plan = self.paths, self.plan
        paths.plan.write_text(plan.dumps())
        write_names(paths.names, plan.names)
        write_keys(plan, paths)
        paths.links.mkdir()
        for node in plan.nodes:
            paths.home(node.name).mkdir(parents=True)
        for node in plan.xia_nodes:
            self._node_config(node).save(paths.node(node.name) / "node.json")

    def nodes(self) -> None:
        """A Mininet node each, with a name under /run/netns. Shells take their time to start: several do so
        at once."""
        names = [node.name for node in self.plan.nodes]
        with ThreadPoolExecutor(SHELLS_AT_ONCE) as pool:
            try:
                for name, made in zip(names, pool.map(self._namespace, names), strict=True):
                    self.context.state.nodes[name] = made
                    self.context.progress(f"node {name}")
            finally:
                pool.shutdown(cancel_futures=True)
        self.context.save()

    def links(self) -> None:
        """veth pairs, most with a middle, and what the plan puts on them."""
        if needs_middles(self.plan):
            helper = self._namespace(wire.ALL_LINKS)
            self.context.state.processes[f"shell {wire.ALL_LINKS}"] = helper.shell
        Links(self.context).build(self.net)
        self.context.save()

    def ports(self) -> None:
        """Taps of guests, and what Mininet leaves to be set on every interface of a node."""
        for node in self.plan.nodes:
            netns = self._netns(node.name)
            for port in node.ports:
                if port.role == "guest":
                    netlink.add_tap(netns, port.name)
                netlink.set_up(netns, port.name, mtu=port.mtu, mac=port.mac, altname=port.altname)
            if node.kind == IP_ROUTER:
                iprouting.forward_ip(netns, {port.name: port.ip for port in node.ports}, node.ip_routes)
        self._baseline()

    def _baseline(self) -> None:
        """IPv4 on the same interfaces, when the plan has it."""
        baseline = self.plan.baseline
        if baseline is None:
            return
        for node in self.plan.nodes:
            taps = baselinenet.taps_of(self.plan, baseline, node)
            baselinenet.configure(self._netns(node.name), baseline.node(node.name), taps)
        for guest in self.plan.guests:
            baselinenet.place_guest(self.plan, guest, guest.on)

    def privates(self) -> None:
        """Directories that each hypervisor has for itself."""
        for node in self.plan.kind("hypervisor"):
            private.make_directories(self.context, node.name)
            private.mount_directories(self.context, node.name)

    def processes(self) -> None:
        """Start all node processes at once, then wait for each to be ready."""
        pipes = {}
        server = ForkServer(self.context)
        for node in self.plan.xia_nodes:
            pipes[node.name] = self._start_node(node, server)
        self.context.save()
        deadline = time.monotonic() + NODE_READY + len(pipes)
        try:
            for name, pipe in pipes.items():
                child = self.context.children[f"node {name}"]
                pipe.wait(child, f"node process of {name}", self.paths.node_log(name), deadline)
                self.context.progress(f"node process {name} is ready")
        finally:
            for pipe in pipes.values():
                pipe.close()

    def _namespace(self, node: str) -> NodeState:
        name = netns_name(self.plan.lab, node)
        path = NETNS_ROOT / name
        namespaces.require_free(path)
        pid = self.net.add_node(node)
        shell = self.context.identify(pid)
        self.context.owner.process(shell.pid, shell.start, what=f"shell {node}")
        inode = netns_inode(pid)
        if inode is None or inode == netns_inode(os.getpid()):
            raise XiatbError(f"{node}: Mininet gave it no network namespace of its own")
        self.context.owner.netns(path, inode)
        namespaces.bind_name(pid, path)
        netlink.prepare(path)
        return NodeState(name, inode, shell, control=str(self.paths.control(node)))

    def _netns(self, node: str) -> Path:
        return NETNS_ROOT / netns_name(self.plan.lab, node)

    def _node_config(self, node: NodePlan) -> NodeConfig:
        paths = self.paths
        return NodeConfig(
            name=node.name,
            kind=node.kind,
            state_dir=paths.node(node.name),
            hid_key=paths.key(node.name),
            lab=self.plan.lab,
            ad=node.ad,
            ad_public=node.ad_public,
            ad_cert=node.ad_cert,
            ports=[
                PortConfig(port.name, port.mac, port.mtu, port.role, ip=port.ip, ip_gateway=port.ip_gateway)
                for port in node.ports
            ],
            gateway_ip=node.gateway_ip if node.ad else "",
            gateway_hid=node.gateway_hid if node.ad else "",
            click=Path(node.click) if node.click else None,
            names=paths.names,
            seed=node.seed,
            data_plane=node.data_plane,
            pace=pace(self.plan),
        )

    def _start_node(self, node: NodePlan, server: ForkServer) -> ReadyPipe:
        pipe = ReadyPipe()
        server.fork(
            node.name,
            self.paths.node(node.name) / "node.json",
            log=self.paths.node_log(node.name),
            env=node_environment(self.paths, self.context.state, node.name),
            niceness=priority.NETWORK,
            ready=pipe.writer,
        )
        pipe.close_writer()
        self.context.state.nodes[node.name].process = self.context.state.processes.pop(f"node {node.name}")
        return pipe


def pace(plan: Plan) -> int:
    """How much the timers of join and routing are stretched, for the number of routers."""
    return min(MAX_PACE, max(1, -(-len(plan.kind("router", "hypervisor")) // PACE_ROUTERS)))


def write_names(path: Path, names: dict[str, str]) -> None:
    """The lab's hosts.xia, in one step."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{name} {dag}\n" for name, dag in names.items()))
    partial.replace(path)
