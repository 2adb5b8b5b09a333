"""libvirt domain XML of a guest, from the template domain.xml.j2.

Lean on purpose: device state that a migration must send after the stop is downtime (migration.md
section 0, fact 8). The machine type is versioned, and nothing in the XML depends on the host.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from xiatb.guests.model import GuestRecord
from xiatb.guests.recipe import KERNEL_CMDLINE

NAMESPACE = "https://xiatb.invalid/guest/1"
"""Of the metadata element that marks a domain as ours."""
EMULATOR = "/usr/bin/qemu-system-x86_64"
TCG_ODD_BYTES = 8192
"""What a TCG guest's RAM has over its whole MiB.

QEMU before 9.0 loses guest writes in a migration under TCG: its dirty bitmap is read a word (64 pages) at
a time without taking the dirty marks out of the software TLB, so that later writes to those pages are
not seen ("physmem: Fix migration dirty bitmap coherency with TCG memory access", QEMU 9.0). A RAM block
whose length is no multiple of 64 pages is read page by page by code that does it right. KVM is not affected.
"""


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        keep_trailing_newline=True,
    )


def domain_xml(record: GuestRecord) -> str:
    """The domain XML of `record`; the same text defines it on every hypervisor."""
    values = dataclasses.asdict(record)
    values.pop("accel")
    return (
        _environment()
        .get_template("domain.xml.j2")
        .render(
            **values,
            domain_type="kvm" if record.accel == "kvm" else "qemu",
            tcg_memory_bytes=0 if record.accel == "kvm" else (record.memory_mib << 20) + TCG_ODD_BYTES,
            namespace=NAMESPACE,
            cmdline=KERNEL_CMDLINE,
            emulator=EMULATOR,
        )
    )


def owner_of(xml: str) -> str | None:
    """The lab that a domain's XML is marked with, or None when it is not ours."""
    mark = ElementTree.fromstring(xml).find(f"./metadata/{{{NAMESPACE}}}guest")
    return None if mark is None else mark.get("lab")
