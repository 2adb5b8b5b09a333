"""A lab's name server and rendezvous service: which nodes run them, and what they know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xiatb.lab.plan import Plan
from xiatb.wire.dag import DAG

LABELS = {"name_server": "ns", "rendezvous": "rendezvous"}
"""Service -> first part of the name in hosts.xia that holds its address."""


def place_of(plan: Plan, service: str) -> str | None:
    """The node that runs `name_server` or `rendezvous`, None when the lab has none."""
    text = plan.names.get(f"{LABELS[service]}.{plan.lab}.xia")
    hid = None if text is None else str(DAG.parse(text).intent_hid)
    return next((node.name for node in plan.nodes if node.hid == hid), None)


def directory(plan: Plan, ask: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """{"name_server", "rendezvous": nodes or None, "names", "hosts": lists as in docs/services.md}.

    `ask` gives the answer of a node's control operation `names`; what it raises goes through.
    """
    places = {service: place_of(plan, service) for service in LABELS}
    answers = {node: ask(node) for node in dict.fromkeys(places.values()) if node is not None}
    names, meeting = answers.get(places["name_server"] or ""), answers.get(places["rendezvous"] or "")
    return {
        **places,
        "names": (names or {}).get("names") or [],
        "hosts": (meeting or {}).get("hosts") or [],
    }
