"""What a lab looks like while it is up: `state.json`, replaced in one step at every change.

Readable without the supervisor, so that `status` and `exec` work when it is dead.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import LabStateError
from xiatb.lab.paths import LabPaths, lab_names
from xiatb.lab.plan import Impairment, Plan
from xiatb.lab.process import ProcessId

STARTING, UP, STOPPING = "starting", "up", "stopping"


@dataclass
class NodeState:
    """One node as it was made."""

    netns: str
    inode: int
    shell: ProcessId
    """holds the namespaces; enter them through its pid"""
    process: ProcessId | None = None
    """the node process"""
    control: str = ""


@dataclass
class LinkState:
    """One link as it is now."""

    forward: Impairment
    backward: Impairment
    backend: str
    """netem, tc-bpf, delay-line or none"""
    middle: bool
    """whether delay and the like can be set"""
    up: bool = True

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LinkState:
        """What `dataclasses.asdict` made of one."""
        ways = {way: Impairment(**data[way]) for way in ("forward", "backward")}
        return cls(**{**data, **ways})


@dataclass
class LabState:
    """One lab."""

    lab: str
    id: str
    boot: str
    supervisor: ProcessId
    since: str
    """UTC, ISO 8601"""
    topology: str
    status: str = STARTING
    nodes: dict[str, NodeState] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    """link name -> netem, tc-bpf, delay-line or none; "rate" -> tbf"""
    links: dict[str, LinkState] = field(default_factory=dict)
    """by link name"""
    processes: dict[str, ProcessId] = field(default_factory=dict)
    """other processes of the lab (delay lines, libvirtd, daemons) by what they are"""

    @property
    def shaping_backend(self) -> str:
        """In a word for manifests, such as "tbf+delay-line"."""
        delays = sorted(set(self.backends.values()) - {"none", "tbf"})
        return "+".join((["tbf"] if "rate" in self.backends else []) + delays) or "none"

    def save(self, path: Path) -> None:
        """Write the file in one step, 0600."""
        partial = path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({**asdict(self), "shaping_backend": self.shaping_backend}, file, indent=1)
        partial.replace(path)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LabState:
        """What `save` wrote."""
        data = {key: value for key, value in data.items() if key != "shaping_backend"}
        nodes = {
            name: NodeState(
                **{**node, "shell": _process(node["shell"]), "process": _process(node["process"])}
            )
            for name, node in data["nodes"].items()
        }
        processes = {what: ProcessId(**one) for what, one in data["processes"].items()}
        links = {name: LinkState.from_json(link) for name, link in data.get("links", {}).items()}
        supervisor = ProcessId(**data["supervisor"])
        made = {"nodes": nodes, "links": links, "processes": processes, "supervisor": supervisor}
        return cls(**{**data, **made})


def _process(data: dict[str, int] | None) -> ProcessId | None:
    return ProcessId(**data) if data else None


def read_state(paths: LabPaths) -> LabState:
    """The lab's state. Raises LabStateError (exit 5) when there is no such lab."""
    try:
        return LabState.from_json(json.loads(paths.state.read_text()))
    except FileNotFoundError as error:
        raise no_such_lab(paths.lab) from error
    except (ValueError, KeyError, TypeError) as error:
        hint = f"xiatb down {paths.lab}"
        raise LabStateError(f"{paths.state}: damaged ({error})", hint=hint) from error


def read_plan(paths: LabPaths) -> Plan:
    """The plan of a lab that is up. Raises LabStateError (exit 5) when there is no such lab."""
    try:
        return Plan.from_json(json.loads(paths.plan.read_text()))
    except FileNotFoundError as error:
        raise no_such_lab(paths.lab) from error


def no_such_lab(lab: str) -> LabStateError:
    """The error that names the labs that there are."""
    labs = lab_names()
    there = f"labs that are up: {', '.join(labs)}" if labs else "no lab is up; xiatb up FILE starts one"
    return LabStateError(f"no such lab: {lab}", hint=there)
