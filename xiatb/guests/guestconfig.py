"""What a guest is told at boot: guest.json, node.json, keys and names, as a cpio after the initramfs.

The kernel unpacks both archives into one tree; the image's first process copies /xiatb-config to
/run/xiatb inside the guest (tmpfs). The combined initrd holds private keys: file mode 0600.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from xiatb.guests import cpio
from xiatb.guests.model import GuestRecord
from xiatb.guests.recipe import CONFIG_DIR
from xiatb.lab.baseline import GATEWAY
from xiatb.node.config import NodeConfig, PortConfig

INTERFACE = "eth0"
IP_ECHO = "_ip"
"""Service of guests in a lab with the IP baseline; no topology can have this name."""


def node_config(record: GuestRecord, seed: int) -> NodeConfig:
    """The configuration of the guest's own node process (paths as inside the guest)."""
    inside = Path(CONFIG_DIR)
    return NodeConfig(
        name=record.name,
        kind="guest",
        lab=record.lab,
        state_dir=inside / "node",
        hid_key=inside / "keys/hid.pem",
        ports=[PortConfig(name=INTERFACE, mac=record.mac, mtu=record.mtu, role="link")],
        attach="direct",
        names=inside / "names",
        seed=seed,
    )


def agent_config(record: GuestRecord, seed: int) -> dict[str, Any]:
    """guest.json: what the agent needs (`xiatb.guests.agent.main`)."""
    services = [
        {
            "name": service.name,
            "kind": service.kind,
            "sid": service.sid,
            "key": f"{CONFIG_DIR}/keys/{service.name}.pem",
            "options": service.options,
        }
        for service in record.services
    ]
    if record.ip:
        services.append({"name": IP_ECHO, "kind": "ip_echo", "sid": "", "key": "", "options": {}})
    return {
        "name": record.name,
        "mtu": record.mtu,
        "seed": seed,
        "serial": "/dev/ttyS1",
        "node": f"{CONFIG_DIR}/node.json",
        "control": f"{CONFIG_DIR}/node/control.sock",
        "services": services,
        **({"ip": {"address": record.ip, "gateway": GATEWAY}} if record.ip else {}),
    }


def config_archive(files: dict[str, bytes]) -> bytes:
    """A cpio with `files` (relative path -> content) below /xiatb-config, all 0600."""
    archive = cpio.Archive()
    archive.directory("xiatb-config", 0o700)
    made = set()
    for name in sorted(files):
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in made:
                archive.directory(f"xiatb-config/{folder}", 0o700)
                made.add(folder)
        archive.file(f"xiatb-config/{name}", files[name], 0o600)
    return archive.finish()


def config_files(
    record: GuestRecord, hid_key: Path, names: Path, seed: int, scratch: Path
) -> dict[str, bytes]:
    """All files of the guest's configuration. `scratch` is an existing private directory."""
    node_json = scratch / "guest-node.json"
    node_config(record, seed).save(node_json)
    files = {
        "guest.json": json.dumps(agent_config(record, seed)).encode(),
        "node.json": node_json.read_bytes(),
        "keys/hid.pem": hid_key.read_bytes(),
        "names": names.read_bytes() if names.exists() else b"",
        "node/.keep": b"",
    }
    node_json.unlink()
    for service in record.services:
        files[f"keys/{service.name}.pem"] = Path(service.key_path).read_bytes()
    return files


def write_initrd(image_initrd: Path, files: dict[str, bytes], target: Path) -> None:
    """Writes the image's initramfs followed by the configuration archive to `target`, mode 0600."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        base = image_initrd.read_bytes()
        stream.write(base + bytes(-len(base) % 512))
        stream.write(config_archive(files))
