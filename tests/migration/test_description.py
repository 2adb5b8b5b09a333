"""What an incoming guest's description and libvirt's cookie may say: what was recorded passes, whatever else
somebody writes into it is refused with the element's name."""

from __future__ import annotations

import dataclasses
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.migration.recordings import DESCRIPTION, FINISH_COOKIE, LAB, PREPARE_COOKIE, REQUEST, record_of
from xiatb.errors import WireError
from xiatb.guests import domain
from xiatb.migration import shapes
from xiatb.migration.description import cookie_shape, domain_shape
from xiatb.migration.messages import Request
from xiatb.migration.shapes import judge, parse

COPIED = dataclasses.replace(REQUEST, storage=True)


def taken(text: str, request: Request = REQUEST) -> None:
    judge(parse(text, "domain"), domain_shape(request, LAB))


def cookie(text: str, request: Request = REQUEST) -> None:
    judge(parse(text, "qemu-migration"), cookie_shape(request, LAB))


def test_what_was_recorded_passes() -> None:
    taken(DESCRIPTION)
    cookie(PREPARE_COOKIE)
    cookie(FINISH_COOKIE)
    taken(DESCRIPTION.replace("<backingStore/>", ""), COPIED)
    label = "<seclabel type='dynamic' model='dac' relabel='yes'/>"  # of a libvirtd that was started again
    taken(DESCRIPTION.replace("<seclabel", f"{label}<seclabel"))


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_whatever_the_template_makes_passes(accel: str) -> None:
    """libvirt writes KiB, and that a disk of its own lies on nothing."""
    request = dataclasses.replace(REQUEST, accel=accel)
    text = domain.domain_xml(record_of(request))
    text = text.replace("unit='MiB'>160<", "unit='KiB'>163840<")
    taken(text.replace("</disk>", "<backingStore/></disk>"), request)
    taken(text, dataclasses.replace(request, storage=True))


def devices(more: str) -> tuple[str, str]:
    return "</devices>", f"{more}</devices>"


def within(more: str) -> tuple[str, str]:
    return "</domain>", f"{more}</domain>"


ARGUMENT = "<qemu:arg value='-machine'/>"
FORGED = [
    (within("<qemu:commandline><qemu:arg value='-S'/></qemu:commandline>"), "another <qemu:commandline>"),
    ((ARGUMENT, f"<qemu:arg value='-device'/>{ARGUMENT}"), "qemu:commandline.*'-device'"),
    ((ARGUMENT, ""), "qemu:commandline"),
    (("</qemu:commandline>", "<qemu:arg value='-S'/></qemu:commandline>"), "<qemu:arg> is not allowed"),
    (("</qemu:commandline>", "<qemu:env name='LD_PRELOAD' value='/x'/></qemu:commandline>"), "<qemu:env>"),
    (("xiatb.qmp,path=/run/xtb/qmp-vm1", "xiatb.qmp,path=/run/xtb/qmp-vm2"), "qemu:arg>: value '.*vm2"),
    (within("<qemu:capabilities><qemu:add capability='x'/></qemu:capabilities>"), "<qemu:capabilities>"),
    (within("<qemu:override/>"), "<qemu:override>"),
    (("/usr/bin/qemu-system-x86_64", "/bin/sh"), "<emulator>: '/bin/sh'"),
    (devices("<emulator>/bin/sh</emulator>"), "another <emulator>"),
    (("<name>vm1", "<name>vm2"), "<name>: 'vm2'"),
    (("<uuid>5e", "<uuid>6e"), "<uuid>"),
    (("<domain type='qemu'", "<domain type='kvm'"), "<domain>: type 'kvm'"),
    (("<domain type='qemu'", "<domain type='qemu' id='1'"), "attribute 'id'"),
    (("163840</memory>", "163841</memory>"), "<memory>: '163841'"),
    (("163840</memory>", "0x1</memory>"), "<memory>"),
    (("<memory unit='KiB'", "<memory unit='GiB'"), "<memory>: unit 'GiB'"),
    (("<memory unit='KiB'", "<memory"), "<memory>: no unit"),
    (("<memory unit='KiB'", "<memory dumpCore='on' unit='KiB'"), "'dumpCore'"),
    (("static'>1<", "static'>2<"), "<vcpu>: '2'"),
    (("<partition>/machine<", "<partition>/system<"), "<partition>"),
    (("pc-q35-7.2", "pc-i440fx-7.2"), "machine"),
    (("/vm1/vmlinuz", "/vm2/vmlinuz"), "<kernel>"),
    (("/vm1/initrd", "/vm2/initrd"), "<initrd>"),
    (("<boot dev", "<loader>/etc/shadow</loader><boot dev"), "<loader> is not allowed"),
    (("<boot dev", "<dtb>/etc/shadow</dtb><boot dev"), "<dtb> is not allowed"),
    (("<boot dev", "<nvram>/etc/shadow</nvram><boot dev"), "<nvram> is not allowed"),
    (("<acpi/>", "<acpi/><vmcoreinfo/>"), "<vmcoreinfo>"),
    (("<on_crash>destroy", "<on_crash>coredump-destroy"), "<on_crash>: 'coredump-destroy'"),
    (within("<memoryBacking><source type='file'/></memoryBacking>"), "<memoryBacking> is not allowed"),
    (within("<cputune><emulatorpin cpuset='0'/></cputune>"), "<cputune>"),
    (within("<sysinfo type='fwcfg'><entry name='opt/x' file='/etc/shadow'/></sysinfo>"), "<sysinfo>"),
    (within("<launchSecurity type='sev'/>"), "<launchSecurity>"),
    (within("<description>x</description>"), "<description>"),
    (("<seclabel type='none'", "<seclabel type='static'"), "<seclabel>: type"),
    (
        within("<seclabel type='dynamic' model='dac' relabel='yes'><label>+0:+0</label></seclabel>"),
        "<label> is not allowed",
    ),
    (within("<seclabel type='static' model='dac' relabel='yes'/>"), "<seclabel>"),
    (("<metadata>", "<metadata><x:y xmlns:x='urn:x'/>"), "<urn:x:y> is not allowed"),
    (("lab=\"t", "lab=\"u"), "lab"),
    (("hid=\"HID:f", "hid=\"HID:e"), "hid"),
    (("<backingStore/>", ""), "<disk>: no <backingStore>"),
    (("<backingStore/>", "<backingStore type='file'><source file='/etc/shadow'/></backingStore>"), "back"),
    ((".shared/vm1.qcow2", ".shared/vm2.qcow2"), "<source>: file"),
    (("source file=", "source dev="), "<source>: attribute 'dev'"),
    (("disk type='file'", "disk type='block'"), "<disk>: type 'block'"),
    (("disk type='file'", "disk type='network'"), "<disk>: type 'network'"),
    (("device='disk'", "device='lun'"), "<disk>: device"),
    (("type='qcow2'", "type='raw'"), "<driver>: type 'raw'"),
    (("type='qcow2' ", ""), "<driver>: no type"),
    (("<target dev='vda'", "<target dev='vdb'"), "<target>: dev"),
    (("<target dev='vda'", "<mirror type='file' file='/etc/x'/><target dev='vda'"), "<mirror>"),
    (("<target dev='vda'", "<encryption format='luks'/><target dev='vda'"), "<encryption>"),
    (devices("<disk type='file' device='disk'/>"), "another <disk>"),
    (("interface type='ethernet'", "interface type='bridge'"), "<interface>: type"),
    (("<target dev='tap0'", "<target dev='tap1'"), "<target>: dev 'tap1'"),
    (("managed='no'", "managed='yes'"), "<target>: managed"),
    ((" managed='no'", ""), "<target>: no managed"),
    (("<rom enabled='no'/>", "<rom file='/etc/shadow'/>"), "<rom>: attribute 'file'"),
    (("<rom enabled", "<script path='/tmp/x'/><rom enabled"), "<script> is not allowed"),
    (("<rom enabled", "<x:script xmlns:x='urn:x' path='/tmp/x'/><rom enabled"), "<urn:x:script>"),
    (("<rom enabled", "<backend tap='/dev/mem'/><rom enabled"), "<backend> is not allowed"),
    (("console-vm1.log", "console-vm2.log"), "<source>: path"),
    (("/var/log/libvirt/console-vm1.log", "/etc/crontab"), "<source>: path '/etc/crontab'"),
    (("mode='bind'", "mode='connect'"), "<source>: mode"),
    (("/run/xtb/agent-vm1.sock", "/run/libvirt/libvirt-sock"), "<source>: path"),
    (("serial type='unix'", "serial type='tcp'"), "<serial>: type"),
    (("console type='file'", "console type='pty'"), "<console>: type"),
    (("<input type='mouse' bus='ps2'", "<input type='passthrough' bus='virtio'"), "<input>"),
    (("<memballoon model='none'", "<memballoon model='virtio'"), "<memballoon>"),
    (("usb' index='0' model='none'", "usb' index='0' model='qemu-xhci'"), "<controller>"),
    ((">\n  <name>", ">x\n  <name>"), "text 'x"),
    (("</name>", "</name>x"), "text 'x"),
    (("</domain>", "</domain><domain/>"), "cannot be read"),
    *(
        (devices(f"<{tag} type='x'/>"), f"<devices>: <{tag}> is not allowed")
        for tag in (
            "hostdev", "filesystem", "channel", "parallel", "graphics", "video", "sound", "rng", "tpm",
            "shmem", "vsock", "redirdev", "smartcard", "watchdog", "panic", "memory", "iommu", "hub", "lease",
            "nvram", "crypto", "pstore",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), FORGED)
def test_what_the_template_cannot_make_is_refused_by_name(change: tuple[str, str], words: str) -> None:
    old, new = change
    assert old in DESCRIPTION
    with pytest.raises(WireError, match=words):
        taken(DESCRIPTION.replace(old, new, 1))


def test_the_arguments_of_qemu_keep_their_order() -> None:
    swapped = (
        DESCRIPTION.replace("'-mon'", "'-x'").replace("'-chardev'", "'-mon'").replace("'-x'", "'-chardev'")
    )
    with pytest.raises(WireError, match="<qemu:arg>: value '-mon' is not what was admitted"):
        taken(swapped)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<name>vm1", "<name>vm2", "<name>: 'vm2'"),
        ("    <emulator>/usr", "    <emulator>/tmp", "<domain>/<devices>/<emulator>"),
        ("/run/xtb/agent-vm1", "/tmp/agent-vm1", "<source>: path"),
        ("<statistics>", "<statistics><x>1a</x>", "<x>: '1a'"),
        ("<statistics>", "<graphics type='spice' port='1' listen='0.0.0.0'/><statistics>", "<graphics>"),
        ("<statistics>", "<lockstate driver='sanlock'/><statistics>", "<lockstate>"),
        ("<statistics>", "<nbd port='49152'/><statistics>", "attribute 'port'"),
        ("<statistics>", "<nbd><disk target='vdb' capacity='1'/></nbd><statistics>", "<disk>: target"),
        ("<feature name='persistent'/>", "<feature name='memory-hotplug'/>", "<feature>: name"),
        ("<hostname>vm", "<hostname>vm;x", "<hostname>"),
        ("<devices>", "<devices><hostdev mode='subsystem'/>", "<hostdev> is not allowed"),
    ],
)
def test_a_forged_cookie_is_refused(old: str, new: str, words: str) -> None:
    assert old in FINISH_COOKIE
    with pytest.raises(WireError, match=words):
        cookie(FINISH_COOKIE.replace(old, new, 1))


def test_a_mirrored_disk_has_the_admitted_size() -> None:
    with pytest.raises(WireError, match="<disk>: capacity"):
        cookie(PREPARE_COOKIE.replace("capacity='1073741824'", "capacity='1073741825'"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no plain"),
        ("\ufeff" + DESCRIPTION, "no plain"),
        ("<?xml version='1.0' encoding='UTF-7'?>" + DESCRIPTION, "no plain"),
        ("<!DOCTYPE domain [<!ENTITY a 'b'>]>" + DESCRIPTION, "no plain"),
        (DESCRIPTION + "\0", "no plain"),
        (DESCRIPTION.replace("vm1<", "v<!-- -->m1<"), "a comment"),
        (DESCRIPTION.replace(">vm1<", "><![CDATA[vm1]]><"), "CDATA"),
        (DESCRIPTION.replace("<name>", "<?x?><name>"), "processing instruction"),
        (DESCRIPTION.replace(">vm1<", ">&vm1;<"), "cannot be read"),
        (DESCRIPTION[:-12], "cannot be read"),
        ("<domainsnapshot/>", "in place of <domain>"),
        ("<domain>" + "<a>" * 20, "12 levels"),
        ("<domain>" + "<a/>" * 2000, "1000 elements"),
        ("<domain>" + " " * shapes.MAX_TEXT, "characters of XML"),
    ],
)
def test_only_plain_and_bounded_xml_is_read(text: str, words: str) -> None:
    with pytest.raises(WireError, match=words):
        taken(text)


def test_refusals_name_the_place_and_stay_short() -> None:
    with pytest.raises(WireError) as caught:
        taken(DESCRIPTION.replace("/usr/bin/qemu", "/" + "x" * 9000))
    assert str(caught.value).startswith("<domain>/<devices>/<emulator>: '/xxx")
    assert len(str(caught.value)) < 200


EXTRA = st.sampled_from([
    "<hostdev mode='subsystem'/>", "<filesystem type='mount'/>", "<emulator>/bin/sh</emulator>",
    "<script path='/tmp/x'/>", "<source file='/etc/shadow'/>", "<source mode='connect' path='/x'/>",
    "<qemu:arg xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' value='-S'/>", "<model name='a'/>",
    "<address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>", "<x/>",
])  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["/etc/shadow", "/bin/sh", "vm2", "yes", "tcp", "0.0.0.0", "", "1", "-device", "kvm"]),
    st.text(max_size=12),
)
WORDS = st.sampled_from(["type", "file", "path", "dev", "value", "mode", "script"]) | st.text(max_size=6)


def bent(data: st.DataObject, root: ET.Element) -> None:
    """One change somewhere in the tree."""
    every = list(root.iter())
    one, other = data.draw(st.sampled_from(every)), data.draw(st.sampled_from(every))
    kind = data.draw(st.integers(0, 6))
    if kind == 0:
        one.insert(data.draw(st.integers(0, len(one))), ET.fromstring(data.draw(EXTRA)))
    elif kind == 1:
        one.set(data.draw(st.sampled_from([*one.attrib, "type"])), data.draw(VALUES))
    elif kind == 2:
        one.set(data.draw(WORDS), data.draw(VALUES))
    elif kind == 3:
        one.text = data.draw(VALUES)
    elif kind == 4:
        one.tag = data.draw(st.sampled_from([other.tag, "script", "hostdev"]))
    elif kind == 5 and other not in one.iter():
        other.append(one)
    elif len(one):
        one.remove(one[data.draw(st.integers(0, len(one) - 1))])


def reaches(root: ET.Element) -> set[tuple[str, str, str]]:
    """All that stands for something of the host, or is handed to QEMU: any value with a path, a name or an
    argument; numbers and words of the hardware aside."""
    told = {(one.tag, name, value) for one in root.iter() for name, value in one.attrib.items()}
    told |= {(one.tag, "", one.text or "") for one in root.iter() if (one.text or "").strip()}
    harmless = ("address", "controller", "target", "mtu", "mac", "model", "feature", "cpu", "input",
                "cmdline", "memory", "currentMemory", "vcpu")  # fmt: skip
    return {entry for entry in told if entry[0] not in harmless}


KNOWN = ET.fromstring(DESCRIPTION)
HARDWARE = re.compile(r"[A-Za-z0-9._+:-]{0,64}", re.ASCII)


@given(st.data())
def test_a_bent_description_is_refused_or_reaches_nothing_new(data: st.DataObject) -> None:
    root = ET.fromstring(DESCRIPTION)
    for _ in range(data.draw(st.integers(1, 4))):
        bent(data, root)
    text = ET.tostring(root, encoding="unicode")
    try:
        taken(text)
    except WireError:
        return
    came = ET.fromstring(text)
    assert reaches(came) <= reaches(KNOWN)
    assert {one.tag for one in came.iter()} <= {one.tag for one in KNOWN.iter()} | {"vendor"}
    for one in came.iter():
        if one.tag not in ("cmdline", "partition") and (one.tag, "", one.text or "") not in reaches(KNOWN):
            assert HARDWARE.fullmatch((one.text or "").strip())


@given(st.data())
def test_a_bent_text_is_refused_or_reaches_nothing_new(data: st.DataObject) -> None:
    text = DESCRIPTION
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text(max_size=8)) + text[at + data.draw(st.integers(0, 8)) :]
    try:
        taken(text)
    except WireError:
        return
    assert reaches(ET.fromstring(text)) <= reaches(KNOWN)


@given(st.text(max_size=200), st.sampled_from(["", "<domain", "<domain>"]))
def test_hostile_text_is_refused(text: str, start: str) -> None:
    with pytest.raises(WireError):
        taken(start + text)
