"""A lab's links: made at `up`, changed while it is up.

A link has a middle (see `wire`) unless the topology says `impairable: false` and nothing needs one. Rates are
at the nodes' own interfaces, everything else is in the middle, so that the order is the same with netem and
with a delay line: the shaper's queue first, then loss, duplication and delay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from xiatb.errors import HostNotAbleError, XiatbError
from xiatb.lab import impairments, netlink, wire
from xiatb.lab.context import Context
from xiatb.lab.lines import Lines
from xiatb.lab.losses import Losses
from xiatb.lab.lossprogram import loses_only
from xiatb.lab.mininet_net import LabNet
from xiatb.lab.paths import NETNS_ROOT, netns_name
from xiatb.lab.plan import Impairment, LinkPlan, Plan
from xiatb.lab.state import LinkState


class Links:
    """All links of one lab. Changes come one at a time, from any thread."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.lines = Lines(context)
        self.losses = Losses(context, self._middles)
        self._lock = threading.Lock()

    @cached_property
    def _netem(self) -> bool:
        return wire.can_forward() and impairments.probe_netem(self.context.runner)

    @property
    def _middles(self) -> Path:
        return NETNS_ROOT / netns_name(self.context.plan.lab, wire.ALL_LINKS)

    def build(self, net: LabNet) -> None:
        """Make all links; the helper node of `needs_middles` is there already."""
        plan, state = self.context.plan, self.context.state
        if any(one.rate for link in plan.links for one in (link.forward, link.backward)):
            impairments.require_rate(self.context.runner)
        for link in plan.links:
            self.context.progress(f"link {link.name}")
            middle = has_middle(link)
            if middle:
                towards_a, towards_b = wire.middle_ports(link.index)
                net.add_link(link.a.node, link.a.port, wire.ALL_LINKS, towards_a)
                net.add_link(wire.ALL_LINKS, towards_b, link.b.node, link.b.port)
            else:
                net.add_link(link.a.node, link.a.port, link.b.node, link.b.port)
            state.links[link.name] = LinkState(Impairment(), Impairment(), impairments.NONE, middle)
        self._open_middles([link for link in plan.links if has_middle(link)])
        self.lines.start_all([link for link in plan.links if self._backend(link) == impairments.DELAY_LINE])
        for link in plan.links:
            self._apply(link, link.forward, link.backward)

    def change(self, link: LinkPlan, forward: Impairment, backward: Impairment) -> LinkState:
        """Give a link other impairments. When that fails the old ones are put back and the error raised."""
        with self._lock:
            state = self.context.state.links[link.name]
            old = dataclasses.replace(state)
            if any(one.rate for one in (forward, backward)):
                impairments.require_rate(self.context.runner)
            try:
                self._apply(link, forward, backward)
            except XiatbError:
                with contextlib.suppress(XiatbError):
                    self._apply(link, old.forward, old.backward)
                raise
            finally:
                self.context.save()
            return state

    def switch(self, link: LinkPlan, *, up: bool) -> LinkState:
        """Pull the cable or plug it in: both ends lose or get their carrier.

        A link without a middle is switched at the nodes' own interfaces."""
        with self._lock:
            state = self.context.state.links[link.name]
            ends = [(self._netns(end.node), end.port) for end in (link.a, link.b)]
            switched = ends
            if state.middle:
                switched = [(self._middles, port) for port in wire.middle_ports(link.index)]
            for netns, port in switched:
                with netlink.routes(netns) as socket_:
                    index = netlink.index_of(socket_, port)
                    socket_.link("set", index=index, state="up" if up else "down")
            for netns, port in ends:
                netlink.tell_carrier(netns, port)
            state.up = up
            self.context.save()
            return state

    def counters(self, link: LinkPlan) -> dict[str, Any]:
        """What the link's delay line or loss program has counted, by direction; {} where neither works."""
        if self.context.state.links[link.name].backend == impairments.LOSS:
            return self.losses.counters(link)
        return self.lines.counters(link) if self.lines.runs(link) else {}

    def queue_drops(self, link: LinkPlan) -> dict[str, int]:
        """Frames that found the shaper's queue full, by direction, where there is a rate."""
        state, found = self.context.state.links[link.name], {}
        for way, end in (("forward", link.a), ("backward", link.b)):
            if getattr(state, way).rate is not None:
                argv = impairments.statistics_command(end.port)
                netns = netns_name(self.context.plan.lab, end.node)
                found[way] = impairments.drops(self.context.runner.run(argv, netns=netns).stdout)
        return found

    def _open_middles(self, links: list[LinkPlan]) -> None:
        """Middle ends up, marked, and joined in the kernel unless a delay line is going to do that."""
        if not links:
            return
        with netlink.routes(self._middles) as socket_:
            for link in links:
                ports = wire.middle_ports(link.index)
                for port in ports:
                    altname = f"xiatb:{self.context.plan.lab}:{link.name}:{port}"[:127]
                    netlink.set_up_here(port, mtu=link.mtu, altname=altname)
                if self._backend(link) != impairments.DELAY_LINE:
                    wire.join(socket_, *ports)

    def _apply(self, link: LinkPlan, forward: Impairment, backward: Impairment) -> None:
        state = self.context.state.links[link.name]
        needed = forward.needs_delay_line or backward.needs_delay_line
        if needed and not state.middle:
            hint = "leave impairable: false out of the topology"
            raise HostNotAbleError(f"{link.name} has no middle: only its rate can be set", hint=hint)
        new = {"forward": forward, "backward": backward}
        self._set_rates(link, state, new)
        old, state.backend = state.backend, self._backend_for(forward, backward)
        if self._netem and state.middle:
            self._set_netem(link, state, new)
        elif state.backend == impairments.DELAY_LINE:
            self._set_line(link, forward, backward)
        elif state.middle and {old, state.backend} != {impairments.NONE}:
            self._set_kernel(link, old, forward, backward)
        state.forward, state.backward = forward, backward
        self._record(link, state)

    def _backend(self, link: LinkPlan) -> str:
        """What does the plan's impairments of a link on this host."""
        return self._backend_for(link.forward, link.backward)

    def _backend_for(self, forward: Impairment, backward: Impairment) -> str:
        needing = [one for one in (forward, backward) if one.needs_delay_line]
        if not needing:
            return impairments.NONE
        if self._netem:
            return impairments.NETEM
        in_kernel = wire.can_forward() and all(map(loses_only, needing))
        return impairments.LOSS if in_kernel else impairments.DELAY_LINE

    def _record(self, link: LinkPlan, state: LinkState) -> None:
        """What `status` and the manifests read."""
        lab = self.context.state
        lab.backends[link.name] = state.backend
        lab.backends.pop("rate", None)
        if any(one.rate for entry in lab.links.values() for one in (entry.forward, entry.backward)):
            lab.backends["rate"] = "tbf"

    def _set_rates(self, link: LinkPlan, state: LinkState, new: dict[str, Impairment]) -> None:
        """The state follows each command, so that a change that fails half-way can be taken back."""
        for way, end in (("forward", link.a), ("backward", link.b)):
            old = getattr(state, way)
            old_command = impairments.rate_command(end.port, link.mtu, old)
            command = impairments.rate_command(end.port, link.mtu, new[way])
            if command is None and old_command is not None:
                command = impairments.clear_command(end.port)
            if command is not None and command != old_command:
                self.context.runner.run(command, netns=netns_name(self.context.plan.lab, end.node))
            setattr(state, way, dataclasses.replace(old, rate=new[way].rate, queue=new[way].queue))

    def _set_netem(self, link: LinkPlan, state: LinkState, new: dict[str, Impairment]) -> None:
        towards_a, towards_b = wire.middle_ports(link.index)
        for way, port in (("forward", towards_b), ("backward", towards_a)):
            command = impairments.netem_command(port, new[way])
            if command is None and getattr(state, way).needs_delay_line:
                command = impairments.clear_command(port)
            if command is not None:
                self.context.runner.run(command, netns=self._middles.name)
            setattr(state, way, new[way])

    def _set_line(self, link: LinkPlan, forward: Impairment, backward: Impairment) -> None:
        """A line that runs takes the new numbers; else one takes over from the kernel."""
        if self.lines.runs(link):
            self.lines.set(link, forward, backward)
        else:
            self.lines.start(link, forward, backward)
        with netlink.routes(self._middles) as socket_:
            for port in wire.middle_ports(link.index):
                wire.hold(socket_, port)
        self.lines.go(link)

    def _set_kernel(self, link: LinkPlan, old: str, forward: Impairment, backward: Impairment) -> None:
        """Nothing is asked for but losses, or nothing any more: what is on the way arrives, then the kernel
        forwards."""
        state = self.context.state.links[link.name]
        line = self.lines.runs(link)
        if not wire.can_forward():
            if line:
                self.lines.set(link, forward, backward)
            return
        if line:
            longest = max(one.delay + one.jitter for one in (state.forward, state.backward)) / 1e9
            self.lines.drain(link, longest + 1)
        if state.backend == impairments.LOSS:
            self.losses.set(link, forward, backward, running=old == impairments.LOSS)
        else:
            with netlink.routes(self._middles) as socket_:
                wire.join(socket_, *wire.middle_ports(link.index))
        self.lines.stop(link)

    def _netns(self, node: str) -> Path:
        return NETNS_ROOT / netns_name(self.context.plan.lab, node)


def has_middle(link: LinkPlan) -> bool:
    """Whether a link is made with a middle on this host."""
    return link.needs_delay_line or (link.impairable and wire.can_forward())


def needs_middles(plan: Plan) -> bool:
    """Whether any link of a plan has a middle."""
    return any(map(has_middle, plan.links))
