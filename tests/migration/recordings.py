"""What libvirt 9.0 said to a destination in a migration of a lab's guest (tests/migration/recorded/): the
live description of Prepare, its cookie, and the cookie of Finish with the definition that libvirt keeps.

The guest's disk is a shared one; the cookie of Prepare is of a guest whose disk was mirrored, with this one's
name. QEMU's arguments are those of today's template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.guests.samples import RECORD
from tests.migration.samples import JOB
from xiatb.guests import domain
from xiatb.guests.model import GuestRecord
from xiatb.migration import messages as m

HERE = Path(__file__).with_name("recorded")
LAB = "t21e8874f"
REQUEST = m.Request(
    job=JOB, guest="vm1", uuid="5eb568fa-9d0c-4561-b6e9-b3fbcb2c6db0",
    hid="HID:fdc3cd14a42ce3a720b579f62b078ee6bad95524", machine="pc-q35-7.2", accel="tcg",
    image="5e5bba9a7c03410f", memory=160 << 20, port="tap0",
    disks=(m.Disk(target="vda", path=f"/var/lib/xiatb/labs/{LAB}/.shared/vm1.qcow2", size=1 << 30,
                  format="qcow2", file="1:2"),),
    files=(f"/run/xiatb/{LAB}/guests/vm1/vmlinuz", f"/run/xiatb/{LAB}/guests/vm1/initrd"),
)  # fmt: skip


def record_of(request: m.Request, **changes: Any) -> GuestRecord:
    """The lab's record of the guest of a request."""
    values: dict[str, Any] = {
        **vars(RECORD), "name": request.guest, "uuid": request.uuid, "hid": request.hid, "lab": LAB,
        "memory_mib": request.memory >> 20, "tap": request.port, "image_id": request.image,
        "accel": request.accel, "disk_path": request.disks[0].path, "kernel": request.files[0],
        "initrd": request.files[1], **changes,
    }  # fmt: skip
    return GuestRecord(**values)


def _recorded(name: str) -> str:
    """With QEMU's arguments as the template makes them."""
    made = ElementTree.fromstring(domain.domain_xml(record_of(REQUEST)))
    space = "{http://libvirt.org/schemas/domain/qemu/1.0}"
    arguments = (one.get("value", "") for one in made.iterfind(f"{space}commandline/{space}arg"))
    block = "<qemu:commandline>" + "".join(f"<qemu:arg value='{one}'/>" for one in arguments)
    text = (HERE / name).read_text()
    return re.sub(r"<qemu:commandline>.*(?=</qemu:commandline>)", lambda _: block, text, flags=re.DOTALL)


DESCRIPTION = _recorded("domain.xml")
PREPARE_COOKIE = _recorded("cookie-prepare.xml")
FINISH_COOKIE = _recorded("cookie-finish.xml")
