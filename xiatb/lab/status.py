"""What a lab looks like right now, as plain data: for `xiatb status`, with or without a living supervisor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xiatb.errors import XiatbError
from xiatb.lab.client import ask_node
from xiatb.lab.ipnetwork import IP_ROUTER
from xiatb.lab.linkops import shown_link
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.state import LabState, read_plan, read_state

Json = dict[str, Any]


def lab_status(paths: LabPaths, extensions: Callable[[], Json] = dict) -> Json:
    """The whole lab. Raises LabStateError when there is none.

    {"lab", "status": starting|up|degraded|stopping|dead, "since", "topology", "seed", "supervisor",
    "shaping_backend", "nodes": [...], "links": [...], "guests": [...], "processes": [...]}; degraded: some
    process of it is dead; dead: the supervisor is."""
    state, plan = read_state(paths), read_plan(paths)
    nodes = [_node_status(paths, plan, state, node.name) for node in plan.nodes]
    others = [
        {"what": what, "pid": one.pid, "alive": one.alive()} for what, one in sorted(state.processes.items())
    ]
    alive = state.supervisor.alive()
    status = state.status if alive else "dead"
    if status == "up" and not all(one["alive"] for one in [*nodes, *others]):
        status = "degraded"
    try:
        extra = extensions()
    except XiatbError as error:
        extra = {"extension_error": str(error)}
    return {
        "lab": state.lab,
        "status": status,
        "since": state.since,
        "topology": state.topology,
        "seed": plan.seed,
        "data_plane": plan.data_plane,
        "accel": next((one["accel"] for one in extra.get("guests", {}).values() if "accel" in one), None),
        "supervisor": {"pid": state.supervisor.pid, "alive": alive},
        "shaping_backend": state.shaping_backend,
        "nodes": nodes,
        "links": [_link_status(plan, state, index) for index in range(len(plan.links))],
        "guests": _guests(plan, extra.get("guests", {})),
        "daemons": extra.get("daemons", {}),
        "processes": others,
        **({"extension_error": extra["extension_error"]} if "extension_error" in extra else {}),
    }


def _node_status(paths: LabPaths, plan: Plan, state: LabState, name: str) -> Json:
    node = plan.node(name)
    entry = state.nodes.get(name)
    process = entry.process if entry else None
    answer: Json = {
        "name": name,
        "kind": node.kind,
        "ad": node.ad_name,
        "hid": node.hid,
        "netns": plan.netns(name),
        "pid": process.pid if process else None,
        "alive": bool(process and process.alive()),
        "state": "not started" if process is None else "dead",
        "dag": None,
        "data_plane": node.data_plane,
        "engine": None,
    }
    if node.kind == IP_ROUTER:
        shell = entry.shell.pid if entry else None
        return {**answer, "pid": shell, "alive": entry is not None, "state": "ip"}
    if not answer["alive"]:
        return answer
    try:
        told = ask_node(paths, name, "status", timeout=2.0)
    except XiatbError as error:
        return {**answer, "state": "silent", "reason": str(error)}
    names = {ad.xid: ad.name for ad in plan.ads}
    return {
        **answer,
        "state": "joined" if told.get("joined") else "not joined",
        "ad": names.get(str(told.get("ad")), told.get("ad")),
        "dag": told.get("dag"),
        "uptime_s": told.get("uptime_s"),
        "engine": told.get("engine"),
        "engine_why": told.get("engine_why"),
        "sids": told.get("sids", []),
        "stats": told.get("stats", {}),
    }


def _link_status(plan: Plan, state: LabState, index: int) -> Json:
    """`linkops.shown_link`, and in short what holds in the first direction."""
    link = plan.links[index]
    shown = shown_link(link, state)
    brief = {key: shown.get("forward", {}).get(key) for key in ("rate", "delay_ns", "loss_ppm")}
    return {**shown, **brief, "alive": shown["state"] != "dead"}


def _guests(plan: Plan, told: Json) -> list[Json]:
    return [
        {"name": guest.name, "on": guest.on, "state": "unknown", "hid": guest.hid, **told.get(guest.name, {})}
        for guest in plan.guests
    ]
