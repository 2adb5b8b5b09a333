"""Configuration of one migration daemon: a JSON file that the manager writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import InvalidFileError, XiatbError
from xiatb.migration.hostpolicy import Policy, from_json
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID


@dataclass(frozen=True)
class Peer:
    """Another hypervisor host: its daemon's SID, and where to dial it (a service DAG; a path with "unix")."""

    name: str
    sid: XID
    address: str


@dataclass(frozen=True)
class DaemonConfig:
    """One daemon.

    `carrier` is "xia", or "unix" for tests without a network, where `listen` and the peers' addresses are
    paths. `shared` holds disks that all hosts reach. `node_control` may be None: guests are then not invited
    to join. `memory_reserve` bytes are never
    given away. In `qemu_pids` libvirt writes GUEST.pid.
    """

    lab: str
    host: str
    key: Path
    state_dir: Path
    socket: Path
    peers: dict[str, Peer] = field(default_factory=dict)
    node_control: Path | None = None
    uri: str = "qemu:///system?socket=/run/libvirt/libvirt-sock"
    libvirt_socket: Path = Path("/run/libvirt/libvirt-sock")
    runtime: Path = Path("/run/xtb")
    images: Path = Path("/var/lib/xiatb/images")
    disks: Path = Path("/var/lib/libvirt/images")
    guests: Path | None = None
    shared: Path | None = None
    carrier: str = "xia"
    listen: str = ""
    memory_reserve: int = 64 << 20
    accel: str = ""
    policy: Policy = Policy()
    qemu_pids: Path = Path("/run/libvirt/qemu")

    def to_json(self) -> dict[str, Any]:
        """Plain data; `load` is its inverse."""
        return {
            "lab": self.lab,
            "host": self.host,
            "key": str(self.key),
            "state_dir": str(self.state_dir),
            "socket": str(self.socket),
            "peers": {p.name: {"sid": str(p.sid), "address": p.address} for p in self.peers.values()},
            "node_control": str(self.node_control) if self.node_control else None,
            "uri": self.uri,
            "libvirt_socket": str(self.libvirt_socket),
            "runtime": str(self.runtime),
            "images": str(self.images),
            "disks": str(self.disks),
            "guests": str(self.guests) if self.guests else None,
            "shared": str(self.shared) if self.shared else None,
            "carrier": self.carrier,
            "listen": self.listen,
            "memory_reserve": self.memory_reserve,
            "accel": self.accel,
            "policy": self.policy.to_json(),
            "qemu_pids": str(self.qemu_pids),
        }


_PATHS = (
    "key",
    "state_dir",
    "socket",
    "node_control",
    "libvirt_socket",
    "runtime",
    "images",
    "disks",
    "guests",
    "shared",
    "qemu_pids",
)
_REQUIRED = ("lab", "host", "key", "state_dir", "socket")


def load(path: Path) -> DaemonConfig:
    """Read a configuration; raises InvalidFileError with every problem found."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidFileError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise InvalidFileError(f"{path}: not a JSON object")
    known = set(DaemonConfig.__dataclass_fields__)
    problems = [f"{path}: unknown key {key!r}" for key in sorted(set(data) - known)]
    problems += [f"{path}: {key!r} is missing" for key in _REQUIRED if key not in data]
    peers: dict[str, Peer] = {}
    for name, peer in sorted(dict(data.get("peers") or {}).items()):
        try:
            peers[name] = Peer(name, XID.parse(peer["sid"]), str(peer["address"]))
            if data.get("carrier", "xia") == "xia":
                DAG.parse(peers[name].address)
        except (XiatbError, KeyError, TypeError) as error:
            problems.append(f"{path}: peer {name!r}: {error}")
    if problems:
        raise InvalidFileError(f"{path}: {len(problems)} problem(s)", problems)
    values: dict[str, Any] = {k: (Path(v) if k in _PATHS and v is not None else v) for k, v in data.items()}
    if "policy" in values:
        values["policy"] = from_json(values["policy"])
    return DaemonConfig(**{**values, "peers": peers})
