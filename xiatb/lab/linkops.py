"""What `xiatb link` and scenarios do to links: find, check, change, show. Blocking; for threads.

Requests and answers are plain data, see `shown_link`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

from xiatb.errors import UsageError, XiatbError
from xiatb.lab.check import split_endpoint
from xiatb.lab.context import Context
from xiatb.lab.linkparams import LinkParameterError, contradictions, merge, parse, shown
from xiatb.lab.links import Links
from xiatb.lab.plan import EndPlan, Impairment, LinkPlan, Plan
from xiatb.lab.source import did_you_mean
from xiatb.lab.state import LabState

Json = dict[str, Any]


class LinkOperations:
    """Links of one lab, by the names of their ends."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._links = Links(context)
        self._lock = threading.Lock()

    def set(
        self, a: str, b: str, values: Mapping[str, object], *, source: str | None = None, clear: bool = False
    ) -> Json:
        """Give the link between `a` and `b` (NODE or NODE:PORT) new parameters, texts with units.

        `source`: only frames that leave that end. `clear`: what is not named goes back to nothing; else it
        stays. The link as it is afterwards. Raises UsageError (also LinkParameterError) before anything has
        changed."""
        link = find_link(self._context.plan, a, b)
        with self._lock:  # two that merge at once must not undo each other
            ways = changed(link, self._context.state, values, source=source, clear=clear)
            self._links.change(link, ways["forward"], ways["backward"])
        return self.show(link)

    def switch(self, a: str, b: str, *, up: bool) -> Json:
        """Pull the link's cable, or plug it in; the link as it is afterwards."""
        link = find_link(self._context.plan, a, b)
        self._links.switch(link, up=up)
        return self.show(link)

    def show_all(self, a: str | None = None, b: str | None = None) -> list[Json]:
        """All links, those of one node, or the one between two."""
        plan = self._context.plan
        if a is None:
            return [self.show(link) for link in plan.links]
        if b is not None:
            return [self.show(find_link(plan, a, b))]
        _known(plan, a)
        return [self.show(link) for link in plan.links if _is_at(link, a)]

    def show(self, link: LinkPlan) -> Json:
        """See `shown_link`; with the counters of its shapers and its delay line or loss program, if any."""
        counters: Json = {}
        drops: Json = {}
        with contextlib.suppress(XiatbError):
            drops = self._links.queue_drops(link)
        with contextlib.suppress(XiatbError):
            counters = self._links.counters(link)
        shown = shown_link(link, self._context.state, counters)
        for way, count in drops.items():
            shown[way]["queue_dropped"] = count
        return shown


def changed(
    link: LinkPlan,
    state: LabState,
    values: Mapping[str, object],
    *,
    source: str | None = None,
    clear: bool = False,
) -> dict[str, Impairment]:
    """What `LinkOperations.set` would make of both directions. Changes nothing. Raises UsageError,
    LinkParameterError when what comes out cannot be."""
    now = state.links[link.name]
    ways = {"forward": now.forward, "backward": now.backward}
    parsed = parse(values)
    chosen = [direction(link, source)] if source else list(ways)
    for way in chosen:
        ways[way] = merge(Impairment() if clear else ways[way], parsed)
    problems = {problem for way in chosen for problem in contradictions(ways[way])}
    if problems:
        raise LinkParameterError("; ".join(sorted(problems)))
    return ways


def find_link(plan: Plan, a: str, b: str) -> LinkPlan:
    """The one link between two ends, each NODE or NODE:PORT. Raises UsageError naming what there is."""
    for end in (a, b):
        _known(plan, end)
    found = [link for link in plan.links if _joins(link, a, b)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(link.name for link in found)
        raise UsageError(f"{len(found)} links between {a} and {b}: {names}", hint="name the port: NODE:PORT")
    there = ", ".join(link.name for link in plan.links if _is_at(link, a.partition(":")[0]))
    raise UsageError(
        f"no link between {a} and {b}", hint=f"links of {a.partition(':')[0]}: {there or 'none'}"
    )


def direction(link: LinkPlan, source: str) -> str:
    """ "forward" when frames from `source` are those from the link's first end, else "backward". Raises
    UsageError when it is no end of the link."""
    for way, end in (("forward", link.a), ("backward", link.b)):
        if _is(end, source):
            return way
    raise UsageError(f"{source!r} is no end of {link.name}", hint=f"ends: {link.a.node}, {link.b.node}")


def shown_link(link: LinkPlan, state: LabState, counters: Json | None = None) -> Json:
    """{"name", "a", "b", "mtu", "state": up|down|dead, "backend", "impairable", "forward": way, "backward":
    way}; a way is {"from", "to", "set": texts by parameter, "rate" (bit/s or None), "delay_ns", "jitter_ns",
    "loss_ppm", "burst", "gemodel_ppm", "mean_loss", "duplicate_ppm", "reorder_ppm", "queue_bytes",
    "queue_dropped": frames or None where it was not asked for, "counters": of the delay line or loss
    program, at least "taken" and "lost", or None}."""
    now = state.links.get(link.name)
    if now is None:
        return {"name": link.name, "mtu": link.mtu, "state": "not made", "backend": "none"}
    line = state.processes.get(f"delay line {link.name}")
    first, second = (f"{end.node}:{end.port}" for end in (link.a, link.b))
    status = "up" if now.up else "down"
    return {
        "name": link.name,
        "a": first,
        "b": second,
        "mtu": link.mtu,
        "state": status if line is None or line.alive() else "dead",
        "backend": now.backend,
        "impairable": now.middle,
        "forward": _way(now.forward, first, second, (counters or {}).get("forward")),
        "backward": _way(now.backward, second, first, (counters or {}).get("backward")),
    }


def _way(one: Impairment, source: str, target: str, counters: Json | None) -> Json:
    return {
        "from": source,
        "to": target,
        "set": shown(one),
        "rate": one.rate,
        "delay_ns": one.delay,
        "jitter_ns": one.jitter,
        "loss_ppm": one.loss,
        "burst": one.burst,
        "gemodel_ppm": one.gemodel,
        "mean_loss": round(one.mean_loss, 9),
        "duplicate_ppm": one.duplicate,
        "reorder_ppm": one.reorder,
        "queue_bytes": one.queue,
        "queue_dropped": None,
        "counters": counters,
    }


def _known(plan: Plan, text: str) -> None:
    parsed = split_endpoint(text)
    nodes = [node.name for node in plan.nodes]
    name = parsed[0] if parsed else text
    if any(guest.name == name for guest in plan.guests):
        raise UsageError(f"{name} is a guest: it is at a tap of its hypervisor", hint="name that node's link")
    if parsed is None or name not in nodes:
        raise UsageError(f"no node named {name!r} in {plan.lab}", hint=did_you_mean(name, nodes))


def _is(end: EndPlan, text: str) -> bool:
    parsed = split_endpoint(text)
    return parsed is not None and parsed[0] == end.node and parsed[1] in (None, int(end.port[3:]))


def _is_at(link: LinkPlan, text: str) -> bool:
    return _is(link.a, text) or _is(link.b, text)


def _joins(link: LinkPlan, a: str, b: str) -> bool:
    return (_is(link.a, a) and _is(link.b, b)) or (_is(link.a, b) and _is(link.b, a))
