"""Real migrations of a boot-sector guest between two libvirtd, all sockets carried by the daemons' relays."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.migration.hypervisors import (
    Hosts,
    Hypervisor,
    ask,
    at,
    bare,
    counts_on,
    migrate,
    migrate_or_die,
    numbers,
    wait_for,
)

pytestmark = [pytest.mark.guest, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

def test_there_and_back(hosts: Hosts, guest: str) -> None:
    one, two = hosts
    events: list[dict[str, Any]] = []
    for source, target in ((one, two), (two, one)):
        known = len(target.console())
        answer = migrate(source, guest, target, events.append)
        assert answer["ok"], answer
        counts_on(target)
        # A line may have been begun on the one host and ended on the other.
        counted = numbers(source.console() + target.console()[known:])[-400:]
        assert all((b - a) % 256 == 1 for a, b in zip(counted, counted[1:], strict=False)), counted
        bare(source, guest)
        result = answer["result"]
        assert 0 < result["downtime_ms"] < result["total_ms"]
        assert result["t_request_ns"] < result["t_stop_ns"] < result["t_resume_ns"] < result["t_commit_ns"]
        assert result["bytes_qemu"]["nbd"] > 16 << 20
        assert result["pages"]["off"] == ""
        assert result["pages"]["zero"] > 10_000
        assert sum(one["normal"] for one in result["pages"]["passes"]) == result["pages"]["normal"]
        assert result["passes"]
        assert result["disks_kept"] == []
    phases = [event["phase"] for event in events if event["event"] == "phase"]
    assert phases[:9] == [
        "capabilities", "admission", "transfer", "storage", "precopy", "switchover", "handover", "commit",
        "done",
    ]  # fmt: skip


def test_requests_that_make_no_sense(hosts: Hosts, guest: str) -> None:
    one, two = hosts
    same = migrate(one, guest, one)["error"]
    assert (same["exit_code"], same["message"]) == (2, "the guest is already on hv1")
    unknown = migrate(one, guest, "hv9")["error"]
    assert unknown["exit_code"] == 2
    assert "hv9" in unknown["message"]
    stopped = migrate(two, guest, one)["error"]
    assert (stopped["exit_code"], stopped["code"]) == (1, "not-running")
    counts_on(one)


def test_admission_refuses_with_reasons(hosts: Hosts, guest: str) -> None:
    one, two = hosts
    plain = migrate(one, guest, two, storage=False)["error"]
    assert plain["code"] == "disk-missing"
    assert "--with-storage" in plain["message"]
    two.run("touch", f"/var/lib/libvirt/images/{guest}.qcow2")
    taken = migrate(one, guest, two)["error"]
    assert taken["code"] == "disk-missing"
    assert "remove it first" in taken["message"]
    assert two.run("ls", f"/var/lib/libvirt/images/{guest}.qcow2"), "a file that is not ours stays"
    two.run("rm", f"/var/lib/libvirt/images/{guest}.qcow2")
    two.define_only(guest)
    there = migrate(one, guest, two)["error"]
    assert there["code"] == "guest-exists"
    two.virsh("undefine", guest)
    counts_on(one)
    bare(two, guest)


@pytest.mark.parametrize("phase", ["storage", "precopy"])
def test_cancel_leaves_the_guest_where_it_is(hosts: Hosts, guest: str, phase: str) -> None:
    one, two = hosts

    async def scenario() -> dict[str, Any]:
        reached = asyncio.Event()

        def watch(event: dict[str, Any]) -> None:
            if event.get("phase") == phase:
                reached.set()

        slow = {"bandwidth": 2 if phase == "storage" else 16}
        task = asyncio.ensure_future(
            ask(one.socket, watch, op="migrate", guest=guest, to=two.name, storage=True, **slow)
        )
        await asyncio.wait_for(reached.wait(), 60)
        cancelled = await ask(one.socket, op="cancel", guest=guest)
        assert cancelled["ok"]
        return await asyncio.wait_for(task, 60)

    answer = asyncio.run(scenario())
    if phase == "precopy" and answer["ok"]:
        pytest.skip("the migration was quicker than the cancellation")
    assert answer["error"]["code"] == "cancelled", answer
    counts_on(one)
    bare(two, guest)
    again = migrate(one, guest, two)
    assert again["ok"], "a cancelled migration can be repeated"


@pytest.mark.parametrize("phase", ["storage", "precopy"])
def test_a_killed_destination_qemu_leaves_the_guest_at_the_source(
    hosts: Hosts, guest: str, phase: str
) -> None:
    one, two = hosts

    def kill() -> None:
        os.kill(int(two.run("cat", f"/run/libvirt/qemu/{guest}.pid")), signal.SIGKILL)

    answer = migrate(one, guest, two, at(phase, kill), bandwidth=2 if phase == "storage" else 16)
    if phase == "precopy" and answer["ok"]:
        pytest.skip("the migration was quicker than the kill")
    assert answer["error"]["code"] == "failed", answer
    assert answer["error"]["message"]
    counts_on(one)
    bare(two, guest)


@pytest.mark.parametrize("victim", ["destination", "source"])
def test_a_killed_daemon_leaves_the_guest_at_the_source(hosts: Hosts, guest: str, victim: str) -> None:
    one, two = hosts
    killed = two if victim == "destination" else one
    answer = migrate_or_die(one, guest, two, at("storage", killed.kill_daemon), bandwidth=2)
    if victim == "destination":
        assert answer is not None
        assert answer["error"]["code"] in ("lost", "failed"), answer
    counts_on(one)
    killed.restart_daemon()
    bare(two, guest)
    wait_for(lambda: one.run("ls", "/run/xtb") == "", 5, "the source's sockets gone")
    again = migrate(one, guest, two)
    assert again["ok"], again
    counts_on(two)


@pytest.mark.parametrize("victim", ["source", "destination"])
def test_a_daemon_killed_in_the_hand_over_leaves_one_running_copy(
    hosts: Hosts, guest: str, victim: str
) -> None:
    """libvirt's own window: the answer to Finish is lost. The source's copy is frozen, so it cannot run."""
    one, two = hosts
    killed = one if victim == "source" else two

    def crash() -> None:
        killed.kill_daemon()
        killed.restart_daemon()

    migrate_or_die(one, guest, two, at("handover", crash))

    def running() -> list[Hypervisor]:
        return [host for host in hosts if guest in host.virsh("list", "--name", "--state-running").split()]

    wait_for(lambda: len(running()) == 1 and not list(killed.base.glob("*/migrations/*-source.json")), 30,
             "one copy, and no doubt about it")  # fmt: skip
    (here,) = running()
    counts_on(here)
    bare(two if here is one else one, guest)
