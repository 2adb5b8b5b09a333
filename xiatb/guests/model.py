"""What the lab knows about one guest: `GuestRecord` and its JSON file guests/<g>/guest.json."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import InvalidFileError

AGENT_SOCKET = "/run/xtb/agent-{guest}.sock"
"""Where a guest's agent is heard, in every hypervisor's mount namespace."""
CONSOLE = "/var/log/libvirt/console-{guest}.log"
"""Where its console is written, likewise."""


@dataclass(frozen=True)
class ServiceRecord:
    """A service in a guest: its SID (text) and the host path of the SID's private key (0600)."""

    name: str
    kind: str
    sid: str
    key_path: str
    options: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GuestRecord:
    """A guest as it was set up; where it runs now is asked of the libvirt daemons.

    Paths `disk_path` and `agent_socket` are those seen inside every hypervisor's mount namespace;
    `kernel` and `initrd` are the same everywhere. `home` is the hypervisor it started on.
    """

    name: str
    uuid: str
    hid: str
    mac: str
    mtu: int
    memory_mib: int
    vcpus: int
    tap: str
    disk_path: str
    disk_bytes: int
    image_id: str
    kernel: str
    initrd: str
    agent_socket: str
    console_log: str
    home: str
    accel: str
    lab: str
    services: tuple[ServiceRecord, ...] = ()
    ip: str = ""
    """IPv4 address at home, in a lab with the IP baseline"""

    def save(self, path: Path) -> None:
        """Writes the JSON file (0600), whole or not at all."""
        fresh = path.with_name(path.name + ".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(dataclasses.asdict(self), stream, indent=1)
            stream.write("\n")
        fresh.replace(path)


def load_record(path: Path) -> GuestRecord:
    """Reads a guest.json. Raises InvalidFileError."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        data["services"] = tuple(ServiceRecord(**service) for service in data["services"])
        return GuestRecord(**data)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidFileError(f"{path}: not a guest record: {error}") from error
