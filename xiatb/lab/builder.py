"""Making a lab out of its plan: files, nodes, links, impairments, private mounts, node processes.

Each method is one step of `xiatb up`, in the order of `build`. Before every act its intent is in the journal,
so that an interruption at any point leaves what `teardown` can find.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.lab import impairments, namespaces, netlink, priority, private
from xiatb.lab.context import Context
from xiatb.lab.keys import KeyRing, write_keys
from xiatb.lab.mininet_net import LabNet
from xiatb.lab.paths import NETNS_ROOT, netns_name
from xiatb.lab.plan import LinkPlan, NodePlan
from xiatb.lab.priority import prioritised
from xiatb.lab.process import netns_inode
from xiatb.lab.readiness import ReadyPipe
from xiatb.lab.state import NodeState
from xiatb.node.config import NodeConfig, PortConfig

NODE_READY = 30.0
LINE_READY = 15.0


class Builder:
    """Builds one lab. `build` is called once, from one thread."""

    def __init__(self, context: Context, net: LabNet) -> None:
        self.context = context
        self.plan = context.plan
        self.paths = context.paths
        self.net = net
        self._netem = False

    def files(self) -> None:
        """Directories, keys, names and node configurations; the state directory itself is there."""
        paths, plan = self.paths, self.plan
        paths.plan.write_text(plan.dumps())
        write_names(paths.names, plan.names)
        write_keys(plan, paths)
        paths.links.mkdir()
        for node in plan.nodes:
            paths.home(node.name).mkdir(parents=True)
            self._node_config(node).save(paths.node(node.name) / "node.json")

    def nodes(self) -> None:
        """A Mininet node each, with a name under /run/netns."""
        for node in self.plan.nodes:
            self.context.progress(f"node {node.name}")
            self.context.state.nodes[node.name] = self._namespace(node.name)
        self.context.save()

    def links(self) -> None:
        """veth pairs, straight or through a delay line; taps; then rates."""
        needed = [link for link in self.plan.links if link.needs_delay_line]
        if needed:
            self._netem = impairments.probe_netem(self.context.runner)
        if any(one.rate for link in self.plan.links for one in (link.forward, link.backward)):
            impairments.require_rate(self.context.runner)
            self.context.state.backends["rate"] = "tbf"
        lines = []
        for link in self.plan.links:
            self.context.progress(f"link {link.name}")
            backend = impairments.backend(link, netem=self._netem)
            self.context.state.backends[link.name] = backend
            if backend == impairments.DELAY_LINE:
                lines.append(self._delay_line(link))
            else:
                self.net.add_link(link.a.node, link.a.port, link.b.node, link.b.port)
            self._shape(link)
        for pipe, link in lines:
            self._await_line(pipe, link)
        self.context.save()

    def ports(self) -> None:
        """Taps of guests, and what Mininet leaves to be set on every interface of a node."""
        for node in self.plan.nodes:
            netns = self._netns(node.name)
            for port in node.ports:
                if port.role == "guest":
                    netlink.add_tap(netns, port.name)
                netlink.set_up(netns, port.name, mtu=port.mtu, mac=port.mac, altname=port.altname)

    def privates(self) -> None:
        """Directories that each hypervisor has for itself."""
        for node in self.plan.kind("hypervisor"):
            private.make_directories(self.context, node.name)
            private.mount_directories(self.context, node.name)

    def processes(self) -> None:
        """Start all node processes at once, then wait for each to be ready."""
        pipes = {}
        for node in self.plan.nodes:
            pipes[node.name] = self._start_node(node)
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

    def _delay_line(self, link: LinkPlan) -> tuple[ReadyPipe, LinkPlan]:
        """A helper namespace with a port towards each end, and the process between them."""
        helper = line_name(link)
        state = self._namespace(helper)
        self.net.add_link(link.a.node, link.a.port, helper, "p0")
        self.net.add_link(helper, "p1", link.b.node, link.b.port)
        for port in ("p0", "p1"):
            altname = f"xiatb:{self.plan.lab}:{link.name}:{port}"[:127]
            netlink.set_up(self._netns(helper), port, mtu=link.mtu, altname=altname)
        config = self.paths.links / f"{link.index}.json"
        directions = {key: dataclasses.asdict(getattr(link, key)) for key in ("forward", "backward")}
        seed = KeyRing(self.plan.seed, self.plan.lab).number("link", str(link.index))
        config.write_text(json.dumps({"link": link.name, "seed": seed, **directions}))
        pipe = ReadyPipe()
        command = [sys.executable, "-m", "xiatb.lab.delayline", str(config)]
        what = f"delay line {link.name}"
        self.context.start(
            ["nsenter", f"--net={self._netns(helper)}", "--", *command],
            what=what,
            log=self.paths.links / f"{link.index}.log",
            env={**os.environ, **pipe.environment()},
            pass_fds=[pipe.writer],
        )
        pipe.close_writer()
        self.context.state.processes[f"shell {helper}"] = state.shell
        return pipe, link

    def _await_line(self, pipe: ReadyPipe, link: LinkPlan) -> None:
        what = f"delay line {link.name}"
        log = self.paths.links / f"{link.index}.log"
        with contextlib.closing(pipe):
            pipe.wait(self.context.children[what], what, log, time.monotonic() + LINE_READY)

    def _shape(self, link: LinkPlan) -> None:
        """Rate at each end's egress; netem below it where it is the backend."""
        for end, impairment in ((link.a, link.forward), (link.b, link.backward)):
            commands = [impairments.rate_command(end.port, link.mtu, impairment)]
            if self._netem:
                commands.append(impairments.netem_command(end.port, impairment))
            for command in commands:
                if command is not None:
                    self.context.runner.run(command, netns=netns_name(self.plan.lab, end.node))

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
            ports=[PortConfig(port.name, port.mac, port.mtu, port.role) for port in node.ports],
            click=Path(node.click) if node.click else None,
            names=paths.names,
            seed=node.seed,
            data_plane=node.data_plane,
        )

    def _start_node(self, node: NodePlan) -> ReadyPipe:
        pipe = ReadyPipe()
        config = self.paths.node(node.name) / "node.json"
        self.context.start(
            self.context.in_node(
                node.name,
                prioritised([sys.executable, "-m", "xiatb.node", str(config)], priority.NETWORK),
            ),
            what=f"node {node.name}",
            log=self.paths.node_log(node.name),
            env=self.context.environment(node.name, pipe.environment()),
            pass_fds=[pipe.writer],
        )
        pipe.close_writer()
        self.context.state.nodes[node.name].process = self.context.state.processes.pop(f"node {node.name}")
        self.context.save()
        return pipe


def line_name(link: LinkPlan) -> str:
    """Name of a delay line's helper node; the dot keeps it apart from names in a topology."""
    return f"delay.{link.index}"


def write_names(path: Path, names: dict[str, str]) -> None:
    """The lab's hosts.xia, in one step."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{name} {dag}\n" for name, dag in names.items()))
    partial.replace(path)
