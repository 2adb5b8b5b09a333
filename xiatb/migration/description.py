"""What the description of an incoming guest may say: what our template (guests/domain.xml.j2) makes for the
guest that was admitted, with what libvirt adds to it, and nothing else.

The additions are those of libvirt 9.0, read off real migrations (tests/migration/recorded).
Parts may be missing but for those that stand for the guest itself: a description can only say less. libvirt's
migration cookie is judged in the same way, with the guest's lasting definition that it brings.
"""

from __future__ import annotations

from typing import Final
from xml.etree import ElementTree

from xiatb.guests import domain
from xiatb.guests.model import AGENT_SOCKET, CONSOLE, GuestRecord
from xiatb.migration.messages import Disk, Request
from xiatb.migration.shapes import Part, Shape, like, may, need, same, up_to

QEMU: Final = "{http://libvirt.org/schemas/domain/qemu/1.0}"
OURS: Final = f"{{{domain.NAMESPACE}}}"
WORD: Final = like(r"[A-Za-z0-9._+-]{1,64}")
UUID: Final = like(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NUMBER: Final = up_to((1 << 63) - 1)
CMDLINE: Final = like(r"[ -~]{0,2048}")
"""The guest's own business: QEMU takes it as one argument."""
ADDRESS: Final = may(
    "address",
    {
        "type": same("pci"), "domain": like("0x0{4}"), "bus": like("0x[0-9a-f]{2}"),
        "slot": like("0x[01][0-9a-f]"), "function": like("0x[0-7]"), "multifunction?": same("on"),
    },
)  # fmt: skip
CPU: Final = may(
    "cpu",
    {"mode": same("custom", "host-passthrough"), "match?": WORD, "check?": WORD, "migratable?": WORD},
    may("model", {"fallback?": WORD}, text=WORD),
    may("vendor", text=WORD),
    may("feature", {"policy": WORD, "name": WORD}, most=256),
)
CONTROLLERS: Final = (
    may("controller", {"type": same("usb"), "index?": same("0"), "model": same("none")}),
    may("controller", {"type": same("sata"), "index": same("0")}, ADDRESS),
    may("controller", {"type": same("pci"), "index": same("0"), "model": same("pcie-root")}),
    may(
        "controller",
        {"type": same("pci"), "index": up_to(32), "model": same("pcie-root-port")},
        may("model", {"name": same("pcie-root-port")}),
        may("target", {"chassis": up_to(255), "port": like("0x[0-9a-f]{1,2}")}),
        ADDRESS,
        most=32,
    ),
)


def domain_shape(request: Request, lab: str, *, lasting: bool = False) -> Shape:
    """The shape of the guest's description, in a lab of that name; `lasting`: of the definition that libvirt
    keeps."""
    emulator, arguments = _of_template(request, lab)
    memory = {"unit": same("KiB")}
    parts = (
        need("name", text=same(request.guest)),
        need("uuid", text=same(request.uuid)),
        may("metadata", {}, may(f"{OURS}guest", {
            "lab": same(lab), "image": same(request.image), "hid": same(request.hid)})),
        need("memory", memory, text=up_to(request.memory >> 10)),
        may("currentMemory", memory, text=up_to(request.memory >> 10)),
        need("vcpu", {"placement?": same("static")}, text=up_to(request.vcpus)),
        may("resource", {}, may("partition", text=same("/machine"))),
        _system(request),
        may("features", {}, may("acpi"), may("apic")),
        CPU,
        may("clock", {"offset": same("utc")}, may("timer", {"name": same("hpet"), "present": same("no")})),
        may("on_poweroff", text=same("destroy")),
        may("on_reboot", text=same("restart")),
        may("on_crash", text=same("destroy")),
        need("devices", {}, need("emulator", text=same(emulator)), *_devices(request, lasting)),
        may("seclabel", {"type": same("none"), "model?": same("none")}),
        # What a libvirtd that was started again has found in its own notes on a running guest.
        may("seclabel", {"type": same("dynamic"), "model": same("dac"), "relabel": same("yes")}),
        Part(f"{QEMU}commandline", _arguments(arguments)),
    )  # fmt: skip
    return Shape({"type": same("kvm" if request.accel == "kvm" else "qemu")}, parts)


def cookie_shape(request: Request, lab: str) -> Shape:
    """The shape of the cookie that libvirt sends beside the description."""
    disks = (
        may("disk", {"target": same(disk.target), "capacity": same(str(disk.size))}) for disk in request.disks
    )
    definition = domain_shape(request, lab, lasting=True)
    parts = (
        need("name", text=same(request.guest)),
        need("uuid", text=same(request.uuid)),
        may("hostname", text=WORD),
        may("hostuuid", text=UUID),
        may("feature", {"name": same("lockstate")}),
        may("feature", {"name": same("persistent")}),
        may("nbd", {}, *disks),
        CPU,
        may("capabilities", {}, may("cap", {"name": WORD, "auto": same("yes", "no")}, most=64)),
        Part("domain", definition),
        may("statistics", {}, may("*", text=NUMBER, most=64)),
    )
    return Shape({}, parts)


def _of_template(request: Request, lab: str) -> tuple[str, list[str]]:
    """Emulator and QEMU's own arguments, as the template makes them for the guest."""
    record = GuestRecord(
        name=request.guest, uuid=request.uuid, hid=request.hid, mac="", mtu=0,
        memory_mib=request.memory >> 20, vcpus=request.vcpus, tap=request.port, disk_path="", disk_bytes=0,
        image_id=request.image, kernel="", initrd="", agent_socket="", console_log="", home="",
        accel=request.accel, lab=lab,
    )  # fmt: skip
    made = ElementTree.fromstring(domain.domain_xml(record))  # noqa: S314 - our own
    arguments = [one.get("value", "") for one in made.iterfind(f"{QEMU}commandline/{QEMU}arg")]
    return made.findtext("devices/emulator", ""), arguments


def _arguments(arguments: list[str]) -> Shape:
    return Shape(parts=tuple(need(f"{QEMU}arg", {"value": same(one)}) for one in arguments), ordered=True)


def _system(request: Request) -> Part:
    """Of the files only those that were admitted, and compared."""
    kind = {"arch?": same("x86_64"), "machine": same(request.machine)}
    return need(
        "os", {}, need("type", kind, text=same("hvm")), may("kernel", text=same(*request.files)),
        may("initrd", text=same(*request.files)), may("cmdline", text=CMDLINE),
        may("boot", {"dev": same("hd")}),
    )  # fmt: skip


def _devices(request: Request, lasting: bool) -> tuple[Part, ...]:
    console = same(CONSOLE.format(guest=request.guest))
    agent = same(AGENT_SOCKET.format(guest=request.guest))
    log = need("source", {"path": console, "append": same("on")})
    ears = need("source", {"mode": same("bind"), "path": agent})
    first = may("target", {"type": same("serial"), "port": same("0")})
    return (
        *(_disk(disk, request.storage or lasting) for disk in request.disks),
        *((_interface(request.port),) if request.port else ()),
        may("serial", {"type": same("file")}, log, _line("0")),
        may("serial", {"type": same("unix")}, ears, _line("1")),
        may("console", {"type": same("file")}, log, first),
        *CONTROLLERS,
        may("input", {"type": same("mouse", "keyboard"), "bus": same("ps2")}, most=2),
        may("memballoon", {"model": same("none")}),
        may("audio", {"id": same("1"), "type": same("none")}),
    )


def _line(port: str) -> Part:
    model = may("model", {"name": same("isa-serial")})
    return may("target", {"type?": same("isa-serial"), "port": same(port)}, model)


def _disk(disk: Disk, made_here: bool) -> Part:
    """One that was not made here may name another file in itself, as what it lies on: it must say that there
    is none, and QEMU looks for none."""
    driver = {
        "name": same("qemu"), "type": same(disk.format), "cache?": same("none"), "discard?": same("unmap"),
        "detect_zeroes?": same("unmap"),
    }  # fmt: skip
    return may(
        "disk", {"type": same("file"), "device": same("disk")},
        need("driver", driver), need("source", {"file": same(disk.path)}),
        may("backingStore") if made_here else need("backingStore"),
        need("target", {"dev": same(disk.target), "bus": same("virtio")}), ADDRESS,
    )  # fmt: skip


def _interface(port: str) -> Part:
    """The tap device is there already: libvirt neither makes nor runs anything for it."""
    return may(
        "interface", {"type": same("ethernet")},
        may("mac", {"address": like("[0-9a-f]{2}(:[0-9a-f]{2}){5}")}),
        need("target", {"dev": same(port), "managed": same("no")}), need("model", {"type": same("virtio")}),
        may("mtu", {"size": up_to(65535)}), may("rom", {"enabled": same("no")}), ADDRESS,
    )  # fmt: skip
