"""Facts from domain XML, admission, journal, configuration, policy, names."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.migration import recordings
from tests.migration.samples import CAPABILITIES, DISK, HID, JOB, REQUEST, SIDS
from xiatb.errors import InvalidFileError, XiatbError
from xiatb.guests.model import ServiceRecord
from xiatb.migration import actions, config, hosting, storage
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.destjob import DestinationJob
from xiatb.migration.driver import HostFacts
from xiatb.migration.facts import facts_of, identity_of, request_for
from xiatb.migration.journal import DESTINATION, Entry, Journal, remove_files
from xiatb.migration.options import Options

XML = """<domain type='qemu'><name>vm1</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
<memory unit='KiB'>196608</memory><vcpu placement='static'>2</vcpu>
<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><kernel>/k</kernel><initrd>/i</initrd></os>
<devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
<source file='/d/vm1.qcow2'/><target dev='vda'/></disk>
<disk type='file' device='cdrom'><source file='/d/seed.iso'/><target dev='sda'/><readonly/></disk>
<interface type='ethernet'><target dev='tap3' managed='no'/></interface></devices></domain>"""
HOST = HostFacts(7002000, 9000000, ("pc-q35-7.2",))


def test_facts_and_request() -> None:
    facts = facts_of(XML)
    assert (facts.name, facts.memory, facts.vcpus, facts.accel) == ("vm1", 192 << 20, 2, "tcg")
    assert facts.disks == (("vda", "/d/vm1.qcow2", "qcow2"),)
    assert (facts.port, facts.machine, facts.files) == ("tap3", "pc-q35-7.2", ("/k", "/i"))
    request = request_for(JOB, facts, identity_of(None, "vm1"), (), storage=False, options=Options())
    assert (request.hid, request.port, request.memory) == ("", "tap3", 192 << 20)


@pytest.mark.parametrize("xml", ["", "<domain", "<domain/>"])
def test_bad_domain_xml(xml: str) -> None:
    with pytest.raises(XiatbError):
        facts_of(xml)


def test_identity_from_the_record(tmp_path: Path) -> None:
    record = tmp_path / "vm1" / "guest.json"
    record.parent.mkdir()
    record.write_text(
        json.dumps({"hid": HID, "services": [{"sid": str(SIDS[0])}], "image_id": "x", "tap": "tap0"})
    )
    identity = identity_of(tmp_path, "vm1")
    assert (identity.hid, identity.services, identity.image, identity.port) == (
        HID,
        (str(SIDS[0]),),
        "x",
        "tap0",
    )
    assert identity_of(tmp_path, "vm2").hid == ""
    record.write_text("[]")
    with pytest.raises(XiatbError, match="not a guest record"):
        identity_of(tmp_path, "vm1")


def admit(tmp_path: Path, state: str = "absent", request: dict[str, Any] | None = None, **own: Any) -> None:
    disks = tmp_path / "images"
    disks.mkdir(exist_ok=True)
    disk = dataclasses.replace(DISK, path=str(disks / "vm1.qcow2"))
    wanted = dataclasses.replace(REQUEST, **{"disks": (disk,), **(request or {})})
    mine = dataclasses.replace(CAPABILITIES, host="hv2", **own)
    hosting.admit(wanted, CAPABILITIES, mine, HOST, state, disks)


def test_admission(tmp_path: Path) -> None:
    admit(tmp_path)
    refusals: list[tuple[str, str, dict[str, Any]]] = [
        ("guest-exists", "vm1", {"state": "off"}),
        ("version-mismatch", "older", {"qemu": 7000000}),
        ("version-mismatch", "pc-q35-9.9", {"request": {"machine": "pc-q35-9.9"}}),
        ("version-mismatch", "KVM", {"request": {"accel": "kvm"}, "accel": "tcg"}),
        ("no-room", "128 MiB of memory", {"memory_free": 1 << 20}),
        ("no-room", "the disks need", {"disk_free": 1}),
        ("disk-missing", "--with-storage", {"request": {"storage": False}}),
        ("unsupported", "takes disks only in", {"request": {"disks": (DISK,)}}),
    ]
    for code, words, how in refusals:
        with pytest.raises(hosting.RefusedError, match=words) as caught:
            admit(tmp_path, **how)
        assert caught.value.code == code
    (tmp_path / "images" / "vm1.qcow2").touch()
    admit(tmp_path, request={"storage": False})
    with pytest.raises(hosting.RefusedError, match="remove it first"):
        admit(tmp_path)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/var/lib/libvirt/images/../../../etc/x", "/var/lib/libvirt/images"]
)
def test_disks_stay_in_their_directory(path: str) -> None:
    request = dataclasses.replace(REQUEST, disks=(dataclasses.replace(DISK, path=path),))
    with pytest.raises(hosting.RefusedError, match="takes disks only in"):
        hosting.admit(request, CAPABILITIES, CAPABILITIES, HOST, "absent", Path("/var/lib/libvirt/images"))


def test_disks_are_made_and_removed(tmp_path: Path) -> None:
    disk = dataclasses.replace(DISK, path=str(tmp_path / "a" / "x.qcow2"))
    asyncio.run(hosting.create_disk(disk))
    seen = asyncio.run(hosting.inspect_disk("vda", disk.path, "qcow2"))
    assert seen.size == disk.size
    assert hosting.remove_disks((disk,)) == ()
    assert hosting.remove_disks((disk,)) == ()
    with pytest.raises(hosting.RefusedError, match="qemu-img create"):
        asyncio.run(hosting.create_disk(dataclasses.replace(disk, path="/proc/x.qcow2")))
    with pytest.raises(XiatbError, match="No such file"):
        asyncio.run(hosting.inspect_disk("vda", disk.path, "qcow2"))
    with pytest.raises(XiatbError, match="qemu-img info"):
        asyncio.run(hosting.inspect_disk("vda", disk.path, "raw"))


def test_only_regular_files_are_read_for_a_peer(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert storage.content_id(tmp_path / "file") == hashlib.sha256(b"x").hexdigest()
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero"), tmp_path / "none"):
        with pytest.raises(OSError):
            storage.content_id(path)


def test_a_peer_learns_nothing_of_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what lies where the lab keeps images, disks and guests is looked at, through links, too."""
    places = [tmp_path / name for name in ("images", "disks", "guests", "shared")]
    for place in places:
        place.mkdir()
        (place / "file").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"x")
    (places[0] / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(places[0] / "fifo")
    here = config.DaemonConfig(
        "lab", "hv2", tmp_path, tmp_path, tmp_path / "s", images=places[0], disks=places[1], guests=places[2],
        shared=places[3],
    )  # fmt: skip
    digest = hashlib.sha256(b"x").hexdigest()

    def refusal(path: Path, wanted: str = digest) -> tuple[str, str]:
        request = dataclasses.replace(REQUEST, files=(str(path),), contents=(wanted,))
        try:
            asyncio.run(storage.admit_storage(request, here))
        except hosting.RefusedError as error:
            return error.code, error.message
        return "", ""

    assert [refusal(place / "file")[0] for place in places] == [""] * 4
    assert refusal(places[0] / "file", "0" * 64)[0] == "wrong-image"
    assert refusal(places[0] / "none")[0] == refusal(places[0] / "fifo")[0] == "image-missing"
    read: list[Path] = []
    monkeypatch.setattr(storage, "content_id", lambda path: read.append(path) or digest)
    outside = [tmp_path / "secret", tmp_path / "none", places[0] / "link", places[0] / ".." / "secret"]
    for path in [*outside, Path("/proc/kcore"), Path("/etc/passwd"), Path("/dev/zero")]:
        assert refusal(path) == ("unsupported", f"hv2 takes no file of a guest at {path}")
        backed = dataclasses.replace(DISK, backing=str(path), backing_format="raw", content=digest)
        with pytest.raises(hosting.RefusedError, match="takes no backing file at"):
            asyncio.run(storage.admit_storage(dataclasses.replace(REQUEST, disks=(backed,)), here))
    assert not read


def test_no_more_is_read_than_the_file_had_when_it_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "grows"
    path.write_bytes(b"x" * 10)
    assert storage._digest(path, 1, 4, 0) == hashlib.sha256(b"xxxx").hexdigest()
    with pytest.raises(OSError, match="shorter"):
        storage._digest(path, 1, 11, 0)


def test_journal_keeps_what_a_crash_left(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "migrations")
    assert journal.left() == []
    disk, sock = tmp_path / "d", tmp_path / "s"
    disk.touch()
    sock.touch()
    entry = Entry(JOB, DESTINATION, "prepared", "hv1", REQUEST, (str(disk),), (str(sock),), (7, 8))
    journal.write(entry)
    assert Journal(tmp_path / "migrations").left() == [entry]
    assert journal.find(JOB, DESTINATION) == entry
    assert journal.find(JOB, "source") is None
    (path,) = (tmp_path / "migrations").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert remove_files(entry, disks=False) == (str(sock),)
    assert disk.exists()
    assert remove_files(entry, disks=True) == (str(disk),)
    journal.close(JOB, DESTINATION)
    assert journal.left() == []
    (tmp_path / "migrations" / "job-x.json").write_text("[")
    assert journal.left() == []
    assert (tmp_path / "migrations" / "job-x.damaged").exists()


def test_a_journal_that_cannot_be_written_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    kept = Entry(JOB, DESTINATION, "arrived", "hv1", REQUEST)
    journal.write(kept)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        journal.write(dataclasses.replace(kept, state="here"))
    journal.note(dataclasses.replace(kept, state="here"))
    assert "the journal does not say here: [Errno 28] No space left on device" in caplog.text
    assert journal.left() == [kept]
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


@pytest.mark.parametrize(("peer", "left"), [("hv1", False), ("hv3", True)])
def test_no_peer_takes_or_erases_the_job_of_another(tmp_path: Path, peer: str, left: bool) -> None:
    async def state(guest: str) -> str:
        return "absent"

    station: Any = SimpleNamespace(
        journal=Journal(tmp_path), driver=SimpleNamespace(state=state), node=None, busy=set(),
        config=config.DaemonConfig("lab", "hv2", tmp_path, tmp_path, tmp_path / "s"),
        permit=lambda *request: None,
    )  # fmt: skip
    kept = Entry(JOB, DESTINATION, "prepared", "hv1", REQUEST, ("/d",))
    station.journal.write(kept)
    consult: Any = None
    job = DestinationJob(DestinationMachine(), None, station, CAPABILITIES, consult, peer)
    job.machine.peer = CAPABILITIES
    with pytest.raises(hosting.RefusedError, match=f"has a job {JOB} already"):
        asyncio.run(job._make_room(REQUEST))
    assert station.journal.find(JOB, DESTINATION) == kept and not station.busy
    job.machine.job = JOB
    job.perform(actions.Forget())
    assert (station.journal.find(JOB, DESTINATION) == kept) is left


def test_config_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    peer = config.Peer("hv2", SIDS[1], "/x")
    wanted = config.DaemonConfig(
        "lab", "hv1", tmp_path / "k", tmp_path, tmp_path / "s", {"hv2": peer}, carrier="unix"
    )
    path.write_text(json.dumps(wanted.to_json()))
    assert config.load(path) == wanted
    path.write_text(json.dumps({"colour": 1, "peers": {"hv2": {"sid": "x", "address": ""}}}))
    with pytest.raises(InvalidFileError) as caught:
        config.load(path)
    assert len(caught.value.problems) == 7
    path.write_text("{")
    with pytest.raises(InvalidFileError):
        config.load(path)


RECORDED = dataclasses.replace(
    recordings.REQUEST, services=(str(SIDS[2]),), contents=("0" * 64, "1" * 64), storage=True
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"uuid": "5eb568fa-0000-4561-b6e9-b3fbcb2c6db0"}, "other UUID"),
        ({"hid": str(SIDS[0]).replace("SID", "HID")}, "other HID"),
        ({"hid": ""}, "other HID"),
        ({"services": ()}, "other services"),
        ({"image": "x"}, "other image"),
        ({"port": "tap7", "vcpus": 9}, "other port, processors"),
        ({"memory": (160 << 20) + 1}, "other memory"),
        ({"disks": (DISK,)}, "other disk"),
        ({"files": ("/run/xiatb/x/guests/vm2/initrd",)}, "other files"),
    ],
)
def test_a_guest_is_the_one_of_the_labs_records(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    service = ServiceRecord("echo", "echo", str(SIDS[2]), "/k")
    (tmp_path / "vm1").mkdir()
    recordings.record_of(RECORDED, services=(service,)).save(tmp_path / "vm1" / "guest.json")
    request = dataclasses.replace(RECORDED, **changes)
    if not words:
        hosting.admit_record(request, "hv2", tmp_path)
        return
    with pytest.raises(hosting.RefusedError, match=f"{words}$") as refused:
        hosting.admit_record(request, "hv2", tmp_path)
    assert refused.value.code == "policy"


def test_without_a_record_the_request_has_to_do(tmp_path: Path) -> None:
    hosting.admit_record(RECORDED, "hv2", None)
    hosting.admit_record(RECORDED, "hv2", tmp_path)
    (tmp_path / "vm1").mkdir()
    (tmp_path / "vm1" / "guest.json").write_text("{")
    with pytest.raises(hosting.RefusedError, match="not a guest record"):
        hosting.admit_record(RECORDED, "hv2", tmp_path)


def test_what_files_hold_must_be_said(tmp_path: Path) -> None:
    """Else a peer could have any file of the lab's directories read into its guest."""
    (tmp_path / "file").write_bytes(b"x")
    here = config.DaemonConfig("lab", "hv2", tmp_path, tmp_path, tmp_path / "s", images=tmp_path)
    silent = dataclasses.replace(REQUEST, files=(str(tmp_path / "file"),))
    with pytest.raises(hosting.RefusedError, match="does not say"):
        asyncio.run(storage.admit_storage(silent, here))


def test_a_disk_that_stays_must_be_named_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "vm2.qcow2").write_bytes(b"x")
    here = config.DaemonConfig("lab", "hv2", tmp_path, tmp_path, tmp_path / "s", disks=tmp_path)
    disk = dataclasses.replace(DISK, path=str(tmp_path / "vm2.qcow2"))
    with pytest.raises(hosting.RefusedError) as refused:
        asyncio.run(storage.admit_storage(dataclasses.replace(REQUEST, disks=(disk,), storage=False), here))
    assert refused.value.code == "wrong-image"
