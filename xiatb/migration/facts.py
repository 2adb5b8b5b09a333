"""What the migration needs to know about a guest, read from libvirt's domain XML and the guest's record."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.migration.messages import Disk, Request
from xiatb.migration.options import Options

_UNITS = {"b": 1, "bytes": 1, "kb": 1000, "k": 1024, "kib": 1024, "mb": 10**6, "m": 1 << 20, "mib": 1 << 20,
          "gb": 10**9, "g": 1 << 30, "gib": 1 << 30}  # fmt: skip


@dataclass(frozen=True)
class GuestFacts:
    """A guest as libvirt describes it. `memory` in bytes; `files` must exist on any host that starts it."""

    name: str
    uuid: str
    accel: str
    machine: str
    memory: int
    vcpus: int
    port: str
    disks: tuple[tuple[str, str, str], ...]  # target, path, format
    files: tuple[str, ...]
    xml_digest: str


@dataclass
class GuestIdentity:
    """What libvirt does not know: the guest's XIA names and image, from guests/<g>/guest.json (may be
    absent)."""

    hid: str = ""
    services: tuple[str, ...] = ()
    image: str = ""
    port: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def facts_of(xml: str) -> GuestFacts:
    """The facts in a live domain XML; raises `XiatbError` when it is not one."""
    try:
        root = ET.fromstring(xml)  # noqa: S314 - from the local libvirtd
    except ET.ParseError as error:
        raise XiatbError(f"libvirt gave a domain XML that cannot be read: {error}") from None
    memory = root.find("memory")
    kind = root.find("os/type")
    if memory is None or kind is None:
        raise XiatbError("libvirt gave a domain XML without memory or machine type")
    target = root.find("devices/interface/target")
    return GuestFacts(
        name=root.findtext("name", ""),
        uuid=root.findtext("uuid", ""),
        accel="kvm" if root.get("type") == "kvm" else "tcg",
        machine=kind.get("machine", ""),
        memory=int(memory.text or 0) * _UNITS[memory.get("unit", "KiB").lower()],
        vcpus=int(root.findtext("vcpu", "1")),
        port=target.get("dev", "") if target is not None else "",
        disks=tuple(_disks(root)),
        files=tuple(
            e.text
            for tag in ("kernel", "initrd", "loader")
            if (e := root.find(f"os/{tag}")) is not None and e.text
        ),
        xml_digest=hashlib.sha256(xml.encode()).hexdigest(),
    )


def _disks(root: ET.Element) -> list[tuple[str, str, str]]:
    """Writable file disks as (target, path, format)."""
    found = []
    for disk in root.iterfind("devices/disk"):
        source, target, driver = disk.find("source"), disk.find("target"), disk.find("driver")
        if disk.find("readonly") is not None or source is None or target is None or not source.get("file"):
            continue
        form = driver.get("type", "raw") if driver is not None else "raw"
        found.append((target.get("dev", ""), source.get("file", ""), form))
    return found


def identity_of(guests: Path | None, guest: str) -> GuestIdentity:
    """The guest's record below directory `guests`; an empty identity when there is none.

    Raises `XiatbError` for a record that cannot be read.
    """
    path = guests / guest / "guest.json" if guests is not None else None
    if path is None or not path.exists():
        return GuestIdentity()
    try:
        record = json.loads(path.read_text())
        services = tuple(str(s["sid"]) for s in record.get("services", []) if s.get("sid"))
        return GuestIdentity(
            hid=str(record.get("hid", "")),
            services=services,
            image=str(record.get("image_id", "")),
            port=str(record.get("tap", "")),
            extra=record,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise XiatbError(f"{path}: not a guest record: {error}") from None


def request_for(job: str, facts: GuestFacts, identity: GuestIdentity, disks: tuple[Disk, ...],
                *, storage: bool, tls: str = "", options: Options) -> Request:  # fmt: skip
    """The REQUEST message for moving this guest as `options` want it; `tls` is the source's pin, empty for
    clear channels."""
    return Request(
        mode="hybrid" if options.may_switch and options.mode == "precopy" else options.mode,
        streams=options.streams,
        job=job,
        guest=facts.name,
        uuid=facts.uuid,
        hid=identity.hid,
        services=identity.services,
        machine=facts.machine,
        accel=facts.accel,
        image=identity.image,
        memory=facts.memory,
        vcpus=facts.vcpus,
        port=identity.port or facts.port,
        disks=disks,
        files=facts.files,
        storage=storage,
        tls=tls,
        verify=options.verify,
        xml_digest=facts.xml_digest,
    )
