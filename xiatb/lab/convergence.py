"""Has the lab's network come together? Asked of the nodes themselves, answered with what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from xiatb.errors import DeadlineError, XiatbError
from xiatb.lab.client import ask_node
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import NodePlan, Plan
from xiatb.node.control_protocol import ControlError

CONDITIONS = ("joined", "converged", "guests")
_FIRST_PAUSE, _LAST_PAUSE = 0.02, 0.25

Ask = Callable[[str, str], dict[str, Any]]
"""(node, op) -> result"""


def missing(plan: Plan, ask: Ask, condition: str) -> list[str]:
    """What keeps the condition from holding, one line each; empty when it holds.

    joined: every host has a locator. converged: besides, every router and hypervisor has routes to all ADs
    and, within its AD, to every gateway and attached host. guests: besides, every guest is attached
    somewhere."""
    return _Look(plan, ask, condition).missing()


class _Look:
    """Looks at a lab again and again, and asks only the nodes that lacked something the last time."""

    def __init__(self, plan: Plan, ask: Ask, condition: str) -> None:
        self.plan, self.ask, self.condition = plan, ask, condition
        self.looks = 0
        self._locators: dict[str, dict[str, Any]] = {}
        self._routed: set[str] = set()
        self._islands = _islands(plan)

    def missing(self) -> list[str]:
        """As `missing` above."""
        self.looks += 1
        found: list[str] = []
        for node in self.plan.xia_nodes:
            if self._locators.get(node.name, {}).get("dag") is not None:
                continue
            try:
                locator = self._locators[node.name] = self.ask(node.name, "locator")
            except XiatbError as error:
                found.append(f"{node.name} does not answer ({error})")
                continue
            if locator.get("dag") is None:
                found.append(f"{node.name} has not joined an AD")
        if self.condition in ("converged", "guests"):
            found += self._missing_routes()
        if self.condition == "guests":
            found += _missing_guests(self.plan, self.ask)
        return found

    def _missing_routes(self) -> list[str]:
        plan, found = self.plan, []
        whole = all(self._locators.get(node.name, {}).get("dag") is not None for node in plan.xia_nodes)
        for node in plan.kind("router", "hypervisor"):
            if node.name in self._routed or node.name not in self._locators:
                continue
            tables = self.ask(node.name, "routes")
            ads, hids = _destinations(tables, "AD"), _destinations(tables, "HID")
            near = {other.ad for other in self._islands[node.name]}
            names = [ad.name for ad in plan.ads if ad.xid in near and ad.xid not in ads]
            for other in self._islands[node.name]:
                here = self._locators.get(other.name, {}).get("ad") == node.ad
                if here and other.name != node.name and other.hid not in hids:
                    names.append(other.name)
            found += [f"{node.name} has no route to {name}" for name in names]
            if whole and not names:
                self._routed.add(node.name)
        return found


def wait_for(
    plan: Plan,
    ask: Ask,
    condition: str,
    *,
    timeout: float,
    pause: Callable[[float], object],
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Until the condition holds; seconds it took. Raises DeadlineError that names what is missing.

    `pause(seconds)` waits (an Event's wait, so that it can be cut short)."""
    begin, step = clock(), _FIRST_PAUSE
    look = _Look(plan, ask, condition)
    while True:
        lacking = look.missing()
        if not lacking and look.looks > 1:
            look = _Look(plan, ask, condition)  # nodes that were well may not be any more: all at one time
            lacking = look.missing()
        if not lacking:
            return clock() - begin
        if clock() - begin >= timeout:
            more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
            raise DeadlineError(f"not {condition} after {timeout:g} s: {'; '.join(lacking[:4])}{more}")
        pause(step)
        step = min(step * 1.5, _LAST_PAUSE)


def asker(paths: LabPaths) -> Ask:
    """Asks node processes over their control sockets."""
    return lambda node, op: ask_node(paths, node, op, timeout=2.0)


def _islands(plan: Plan) -> dict[str, list[NodePlan]]:
    """Each node's part of the lab that XIP links hold together; over IP links nothing is routed."""
    island = {node.name: {node.name} for node in plan.xia_nodes}
    for link in plan.links:
        if link.ip is None and island[link.a.node] is not island[link.b.node]:
            whole = island[link.a.node] | island[link.b.node]
            island.update(dict.fromkeys(whole, whole))
    return {name: [node for node in plan.xia_nodes if node.name in names] for name, names in island.items()}


def _destinations(tables: dict[str, Any], kind: str) -> set[str]:
    return {str(route.get("xid")) for route in tables.get(kind, [])}


def _missing_guests(plan: Plan, ask: Ask) -> list[str]:
    there: set[str] = set()
    for node in plan.kind("hypervisor"):
        try:
            there |= {str(host.get("hid")) for host in ask(node.name, "joined").get("hosts", [])}
        except ControlError:
            continue
    return [f"guest {guest.name} is not attached" for guest in plan.guests if guest.hid not in there]
