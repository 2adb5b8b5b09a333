"""What one node process needs to know: `NodeConfig` and its JSON file `nodes/<n>/node.json`.

The lab writes the file; `python -m xiatb.node NODE.json` reads it. Validation collects every
problem of a file before it raises. Plain dataclasses, no pydantic: guests read this under TCG.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import InvalidFileError

KINDS = ("host", "router", "hypervisor", "guest")
ROLES = ("link", "guest", "internal", "ip")
ATTACHMENTS = ("xia0", "direct")
DATA_PLANES = ("auto", "ebpf", "click")
MIN_MTU = 576
MAX_MTU = 65535
MAX_PACE = 15
INTERNAL_APP = "xia0"
"""Name of the internal link's end that applications use."""
INTERNAL_NODE = "xia0r"
"""Name of the internal link's end that the node process uses; always port 0 of the graph."""


@dataclass(slots=True)
class PortConfig:
    """One network interface of a node.

    name: what people call it; ifname: its kernel name inside the namespace (default: `name`);
    mac: text, may be empty (the kernel's is used); mtu in bytes without Ethernet header;
    role: "link" to another node, "guest" a tap of a virtual machine, "ip" a link of an IPv4 network that XIP
    crosses in UDP, "internal" unused here. ip: own IPv4 address with prefix length and ip_gateway: the next
    router's address, of a port of role "ip" only.
    """

    name: str
    mac: str = ""
    mtu: int = 1500
    role: str = "link"
    ifname: str = ""
    ip: str = ""
    ip_gateway: str = ""

    @property
    def device(self) -> str:
        """The kernel's name of the interface."""
        return self.ifname or self.name


@dataclass(slots=True)
class NodeConfig:
    """Configuration of one node process; fields as in the JSON file."""

    name: str
    kind: str
    state_dir: Path
    hid_key: Path
    lab: str = ""
    ad: str | None = None
    ad_public: str | None = None
    ad_cert: str | None = None
    ports: list[PortConfig] = field(default_factory=list)
    attach: str = "xia0"
    click: Path | None = None
    names: Path | None = None
    seed: int = 0
    data_plane: str = "auto"
    pace: int = 1
    """Stretches the timers of join and routing, so that large labs have processors left for packets."""
    gateway_ip: str = ""
    """IPv4 address by which this node's AD is reached over IP; empty: it is not."""
    gateway_hid: str = ""
    """The router of the AD that has that address; empty: this one."""

    @property
    def is_gateway(self) -> bool:
        """True for nodes that own an AD and take joins: routers and hypervisors."""
        return self.kind in ("router", "hypervisor")

    @property
    def control_path(self) -> Path:
        """The UNIX socket of the control protocol."""
        return self.state_dir / "control.sock"

    @property
    def click_path(self) -> Path:
        """The UNIX socket of ControlSocket/1.3."""
        return self.state_dir / "click.sock"

    @property
    def log_path(self) -> Path:
        """The log file of the node process."""
        return self.state_dir / "node.log"

    @property
    def graph_path(self) -> Path:
        """Where the running Click configuration is written, readable for people."""
        return self.state_dir / "node.click"

    def problems(self) -> list[str]:
        """Everything that is wrong with the values, one line each; empty when all is well."""
        found = []
        for label, value, allowed in (
            ("kind", self.kind, KINDS),
            ("attach", self.attach, ATTACHMENTS),
            ("data_plane", self.data_plane, DATA_PLANES),
        ):
            if value not in allowed:
                found.append(f"{label}: {value!r} is not one of {', '.join(allowed)}")
        if not 1 <= self.pace <= MAX_PACE:
            found.append(f"pace: {self.pace} is not in 1..{MAX_PACE}")
        if not self.name:
            found.append("name: must not be empty")
        if self.is_gateway and not (self.ad and self.ad_public and self.ad_cert):
            found.append(f"ad, ad_public, ad_cert: a {self.kind} needs all three")
        if self.attach == "direct" and sum(port.role == "link" for port in self.ports) != 1:
            found.append("attach: 'direct' needs exactly one port of role 'link'")
        seen: set[str] = set()
        for index, port in enumerate(self.ports):
            where = f"ports[{index}]"
            if port.role not in ROLES:
                found.append(f"{where}.role: {port.role!r} is not one of {', '.join(ROLES)}")
            if not MIN_MTU <= port.mtu <= MAX_MTU:
                found.append(f"{where}.mtu: {port.mtu} is not in {MIN_MTU}..{MAX_MTU}")
            if not 0 < len(port.device) <= 15:
                found.append(f"{where}.ifname: {port.device!r} has not 1 to 15 characters")
            if port.device in seen:
                found.append(f"{where}.ifname: {port.device!r} is used twice")
            seen.add(port.device)
            if port.role == "ip":
                found += [f"{where}.{problem}" for problem in _ip_problems(port)]
        if self.gateway_ip and not _is_ipv4(self.gateway_ip):
            found.append(f"gateway_ip: {self.gateway_ip!r} is no IPv4 address")
        return found

    def save(self, path: Path) -> None:
        """Writes the JSON file."""
        data = asdict(self)
        for key in ("state_dir", "hid_key", "click", "names"):
            data[key] = None if data[key] is None else str(data[key])
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _is_ipv4(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdecimal() and len(part) < 4 and int(part) < 256 for part in parts)


def _ip_problems(port: PortConfig) -> list[str]:
    address, _, prefix = port.ip.partition("/")
    found = []
    if not _is_ipv4(address) or not prefix.isdecimal() or not 1 <= int(prefix) <= 31:
        found.append(f"ip: {port.ip!r} is not like 192.0.2.1/24")
    if port.ip_gateway and not _is_ipv4(port.ip_gateway):
        found.append(f"ip_gateway: {port.ip_gateway!r} is no IPv4 address")
    return found


def _known(cls: type, data: dict[str, Any], where: str, found: list[str]) -> dict[str, Any]:
    fields = set(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    found += [f"{where}{key}: unknown key" for key in sorted(set(data) - fields)]
    return {key: value for key, value in data.items() if key in fields}


_TEXT = {
    "name", "kind", "state_dir", "hid_key", "lab", "attach", "data_plane", "mac", "role", "ifname", "ip",
    "ip_gateway", "gateway_ip", "gateway_hid",
}  # fmt: skip
_OPTIONAL_TEXT = {"ad", "ad_public", "ad_cert", "click", "names"}
_NUMBERS = {"seed", "mtu", "pace"}


def _check_types(data: dict[str, Any], where: str, found: list[str]) -> None:
    for key, value in data.items():
        if key in _TEXT and not isinstance(value, str):
            found.append(f"{where}{key}: must be a string")
        elif key in _OPTIONAL_TEXT and not isinstance(value, str | None):
            found.append(f"{where}{key}: must be a string or null")
        elif key in _NUMBERS and (not isinstance(value, int) or isinstance(value, bool)):
            found.append(f"{where}{key}: must be an integer")


def _ports(value: object, found: list[str]) -> list[PortConfig]:
    if not isinstance(value, list):
        found.append("ports: must be a list")
        return []
    ports = []
    for index, item in enumerate(value):
        where = f"ports[{index}]."
        if not isinstance(item, dict) or "name" not in item:
            found.append(f"{where}name: is missing")
            continue
        known = _known(PortConfig, item, where, found)
        before = len(found)
        _check_types(known, where, found)
        if len(found) == before:
            ports.append(PortConfig(**known))
    return ports


def parse_config(data: object, *, source: str = "node.json") -> NodeConfig:
    """A NodeConfig from decoded JSON. Raises InvalidFileError listing every problem."""
    if not isinstance(data, dict):
        raise InvalidFileError(f"{source}: must hold a JSON object")
    found: list[str] = []
    values = _known(NodeConfig, data, "", found)
    found += [f"{key}: is missing" for key in ("name", "kind", "state_dir", "hid_key") if key not in values]
    _check_types(values, "", found)
    values["ports"] = _ports(values.get("ports", []), found)
    if found:
        raise InvalidFileError(f"{source}: {'; '.join(found)}", found)
    for key in ("state_dir", "hid_key", "click", "names"):
        if values.get(key) is not None:
            values[key] = Path(values[key])
    config = NodeConfig(**values)
    found = config.problems()
    if found:
        raise InvalidFileError(f"{source}: {'; '.join(found)}", found)
    return config


def load_config(path: Path) -> NodeConfig:
    """Reads and checks a node's JSON file. Raises InvalidFileError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidFileError(f"{path}: {error}") from error
    return parse_config(data, source=str(path))
