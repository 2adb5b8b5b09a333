"""Where something is now: a node's or guest's present address, or what a name stands for."""

from __future__ import annotations

from typing import Any

from xiatb.errors import UsageError, WireError, XiatbError
from xiatb.lab.client import ask_node
from xiatb.lab.ipnetwork import IP_ROUTER
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.source import did_you_mean
from xiatb.node.names import parse_hosts
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.xid import XID

_FORMS = ("RE ", "DAG ", "http://")


def address_of(paths: LabPaths, plan: Plan, text: str) -> str:
    """The DAG (RE form) of a node, a guest, a name of hosts.xia (with or without ".LAB.xia"), or a DAG
    given as text. Nodes and guests are asked for where they are now. Raises UsageError with the nearest
    name."""
    if text.startswith(_FORMS):
        try:
            return str(DAG.parse(text))
        except WireError as error:
            raise UsageError(f"not a DAG: {error.message}") from error
    if text in {node.name for node in plan.nodes}:
        if plan.node(text).kind == IP_ROUTER:
            raise UsageError(f"{text} knows IP alone: it has no XIA address")
        dag = ask_node(paths, text, "locator").get("dag")
        return str(dag) if dag else plan.node(text).dag
    if text in {guest.name for guest in plan.guests}:
        return guest_address(paths, plan, text)
    names = parse_hosts(paths.names.read_text())
    for name in (text.lower(), f"{text.lower()}.{plan.lab}.xia"):
        if name in names:
            return _moved(paths, plan, names[name])
    known = [*(node.name for node in plan.nodes), *(guest.name for guest in plan.guests), *names]
    raise UsageError(f"no node, guest or name {text!r} in {plan.lab}", hint=did_you_mean(text, known))


def guest_host(paths: LabPaths, plan: Plan, guest: str) -> str | None:
    """The hypervisor at which a guest is attached now; None when it is nowhere. One that it has left keeps it
    for some seconds, to send its packets on, and says that it is away. Of others the newest JOIN counts: it
    alone does not tell, as the guest signs the one for its new place before it refreshes the old."""
    hid = plan.guest(guest).hid
    found: dict[str, tuple[bool, int]] = {}
    for node in plan.kind("hypervisor"):
        try:
            hosts: list[dict[str, Any]] = ask_node(paths, node.name, "joined").get("hosts", [])
        except XiatbError:
            continue
        for host in hosts:
            if host.get("hid") == hid:
                found[node.name] = (not host.get("away", False), int(host.get("seq", 0)))
    return max(found, key=lambda name: found[name], default=None)


def guest_address(paths: LabPaths, plan: Plan, guest: str) -> str:
    """A guest's locator where it is now, or on its first host when it is attached nowhere."""
    host = guest_host(paths, plan, guest)
    if host is None:
        return plan.guest(guest).dag
    return str(plan.node(host).at(XID.parse(plan.guest(guest).hid)))


def _moved(paths: LabPaths, plan: Plan, dag: str) -> str:
    """A guest's name with the locator that it has now."""
    address = DAG.parse(dag)
    for guest in plan.guests:
        if address.intent_hid is not None and str(address.intent_hid) == guest.hid:
            now = DAG.parse(guest_address(paths, plan, guest.name))
            return str(now if address.intent == now.intent else served(now, address.intent))
    return dag
