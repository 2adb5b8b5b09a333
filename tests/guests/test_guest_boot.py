"""The real image under QEMU and libvirt: boot, agent, services' data, a migration between two libvirtd."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import libvirt
import pytest

from tests.guests.fakelab import FakeLab, a_guest, wait
from xiatb.guests import libvirtd, sandbox
from xiatb.guests.agent.pattern import digest_of_file, digest_of_region
from xiatb.guests.manager import READY_DEADLINE, LibvirtGuestManager
from xiatb.identity.keys import KeyPair
from xiatb.lab.plan import ServicePlan
from xiatb.lab.runner import CommandError

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

MIB = 1 << 20


@pytest.fixture(scope="module")
def running():
    """A guest that runs on hv1 of two hypervisors; (lab, manager)."""
    guest = a_guest("vm1", "hv1", [ServicePlan("writer", "writer", "SID:" + "2" * 40, {})])
    lab = FakeLab(["hv1", "hv2"], [guest])
    manager = LibvirtGuestManager()
    try:
        lab.paths.keys.mkdir(parents=True)
        for name in ("guest-vm1", "guest-vm1-writer"):
            KeyPair.generate().save(lab.paths.key(name))
        assert manager.check(lab.plan) == []
        manager.prepare(lab)
        for node in ("hv1", "hv2"):
            manager.start_hypervisor(lab, node)
        started = time.monotonic()
        manager.start_guest(lab, "vm1")
        lab.boot_seconds = time.monotonic() - started
        yield lab, manager
        manager.stop(lab)
        assert not _qemus(lab)
    finally:
        lab.close()


def _qemus(lab):
    uuid = lab.plan.guests[0].uuid.encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if uuid in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
    return found


def ask(running, **request):
    lab, manager = running
    return manager.agent(lab, "vm1", request, 60.0)


def test_the_guest_is_ready_soon(running):
    lab, manager = running
    status = manager.status(lab)["vm1"]
    assert (status["state"], status["on"], status["home"]) == ("running", "hv1", "hv1")
    wanted = sandbox.works()[0] or sandbox.filtered(os.getpid())
    assert status["sandbox"] is wanted, "QEMU's system calls are filtered where they can be"
    assert lab.boot_seconds < READY_DEADLINE
    state = ask(running, op="ready")
    assert state["services"]["writer"]["state"] == "up"


def test_uptime_goes_on(running):
    first = ask(running, op="uptime")
    second = ask(running, op="uptime")
    assert second["boot_id"] == first["boot_id"]
    assert second["monotonic_ns"] > first["monotonic_ns"]


def test_commands_run_in_the_guest(running):
    lab, manager = running
    output = {"stdout": b"", "stderr": b""}

    def emit(name, data):
        output[name] += data

    script = "cat /etc/hostname; uname -n; echo oops >&2; exit 7"
    assert manager.exec(lab, "vm1", ["sh", "-c", script], emit, 30.0) == 7
    assert output == {"stdout": b"xiatb-guest\nvm1\n", "stderr": b"oops\n"}
    assert manager.exec(lab, "vm1", ["no-such-program"], emit, 30.0) == 127
    assert manager.exec(lab, "vm1", ["sleep", "100"], emit, 1.0) == 124
    output["stdout"] = b""
    assert manager.exec(lab, "vm1", ["seq", "30000"], emit, 60.0) == 0
    assert output["stdout"] == b"".join(b"%d\n" % n for n in range(1, 30001))


def test_a_written_file_has_the_predicted_checksum(running):
    written = ask(running, op="write_file", path="/root/file", size=3 * MIB + 5, seed=77)
    read = ask(running, op="checksum", path="/root/file")
    assert written["sha256"] == read["sha256"] == digest_of_file(77, 3 * MIB + 5)


def _verified(running):
    state = ask(running, op="service", service="writer", command="verify")
    for name in ("memory", "disk"):
        target = state[name]
        assert target["digest"] == digest_of_region(target["seed"], target["chunks"], target["writes"]), name
    return state


def test_the_writer_dirties_memory_and_disk_as_predicted(running):
    ask(running, op="service", service="writer", command="start", memory_rate=4 * MIB, disk_rate=MIB)
    wait(2.0)
    state = _verified(running)
    assert state["memory"]["bytes"] > 2 * MIB
    assert state["disk"]["bytes"] > 0


def _link(lab, here, there):
    """Lets QEMU and libvirt on `here` reach the sockets of `there`, as the migration daemons' relays do."""
    inside = Path(f"/proc/{lab.node_pid(there)}/root")
    for name, target in (
        ("p.sock", "run/libvirt/libvirt-sock"),
        ("m.sock", "run/xtb/m.sock"),
        ("d.sock", "run/xtb/d.sock"),
    ):
        link = lab.paths.private(here) / "run/xtb" / name
        link.unlink(missing_ok=True)
        link.symlink_to(inside / target)
    for name in ("m.sock", "d.sock"):
        (lab.paths.private(there) / "run/xtb" / name).unlink(missing_ok=True)


def _move(lab, here, there):
    _link(lab, here, there)
    disk = lab.paths.private_disk(there) / "images" / "vm1.qcow2"
    disk.unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), str(1 << 30)], check=True)
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PERSIST_DEST
    flags |= libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_NON_SHARED_DISK
    parameters = {
        libvirt.VIR_MIGRATE_PARAM_URI: "unix:///run/xtb/m.sock",
        libvirt.VIR_MIGRATE_PARAM_DISKS_URI: "unix:///run/xtb/d.sock",
    }
    with libvirtd.connection(Path(f"/proc/{lab.node_pid(here)}/root")) as connection:
        guest = connection.lookupByName("vm1")
        guest.migrateToURI3("qemu+unix:///system?socket=/run/xtb/p.sock", parameters, flags)


def test_agent_memory_and_disk_survive_a_migration_and_the_way_back(running):
    lab, manager = running
    before = ask(running, op="uptime")
    writes = _verified(running)["memory"]["writes"]
    for here, there in (("hv1", "hv2"), ("hv2", "hv1")):
        try:
            _move(lab, here, there)
        except (libvirt.libvirtError, CommandError) as error:
            pytest.fail(f"{here} to {there}: {error}")
        status = manager.status(lab)["vm1"]
        assert (status["state"], status["on"], status["home"]) == ("running", there, "hv1")
        after = ask(running, op="uptime")
        assert after["boot_id"] == before["boot_id"]
        assert after["monotonic_ns"] > before["monotonic_ns"]
        state = _verified(running)
        assert state["memory"]["writes"] > writes
        assert ask(running, op="checksum", path="/root/file")["sha256"] == digest_of_file(77, 3 * MIB + 5)
        before, writes = after, state["memory"]["writes"]
