"""Every mode with a real guest: it counts on, every page is compared at both ends, and a post-copy that
breaks is taken up again."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.migration.hypervisors import Hosts, ask, at, migrate_or_die, numbers, wait_for

pytestmark = [pytest.mark.guest, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FILLED = 24
"""MiB of the guest's memory that are not zero."""


@pytest.fixture(scope="module")
def place(hosts: Hosts) -> Iterator[dict[str, Any]]:
    """One guest for all modes, and on which host it is."""
    name = f"g{secrets.token_hex(3)}"
    hosts[0].start_guest(name, fill_mib=FILLED, disk_mib=2)
    wait_for(lambda: len(hosts[0].serial()) > 1, 30, "the guest's first lines")
    yield {"guest": name, "hosts": hosts}
    for host in hosts:
        host.forget(name)


def migrate(place: dict[str, Any], on_event: Any = None, **options: Any) -> dict[str, Any]:
    """To the other host; there the guest goes on counting where it stopped."""
    source, target = place["hosts"]
    known = len(target.console())
    request = {"op": "migrate", "guest": place["guest"], "to": target.name, "storage": True, **options}
    answer = asyncio.run(ask(source.socket, on_event, **request))
    assert answer["ok"], answer
    place["hosts"] = (target, source)
    before = len(target.serial())
    wait_for(lambda: len(target.serial()) > before + 2, 20, f"progress on {target.name}")
    counted = numbers(source.console() + target.console()[known:])[-400:]
    assert all((b - a) % 256 == 1 for a, b in zip(counted, counted[1:], strict=False)), counted
    result: dict[str, Any] = answer["result"]
    assert result["pages"]["verified"] is True, result["pages"]
    assert result["bytes_qemu"]["ram"] > FILLED << 20
    return result


def statuses(result: dict[str, Any]) -> list[str]:
    return [one["status"] for one in result["qemu_states"]]


def test_post_copy_stops_the_guest_for_the_device_state_only(place: dict[str, Any]) -> None:
    result = migrate(place, mode="postcopy")
    assert "postcopy-active" in statuses(result)
    assert result["mode"] == "postcopy"
    # The rest of memory came after the guest ran: had it come before, the guest had stood that long.
    assert result["downtime_ms"] < (result["t_commit_ns"] - result["t_stop_ns"]) / 1e6


def test_hybrid_switches_after_the_passes_that_were_asked_for(place: dict[str, Any]) -> None:
    result = migrate(place, mode="hybrid", after_passes=1, downtime=1, bandwidth=64)
    assert result["mode"] == "hybrid"
    assert {"postcopy-active", "device"} & set(statuses(result))


def test_multifd_has_a_channel_for_each_stream(place: dict[str, Any]) -> None:
    result = migrate(place, streams=3)
    assert result["streams"] == 3
    assert len(result["pages"]["multifd"]) == 3
    assert sum(result["pages"]["multifd"]) > (FILLED << 20) // 4096 * 0.9


def test_time_limit_that_forces_the_stop(place: dict[str, Any]) -> None:
    result = migrate(place, timeout=0.1, timeout_action="force", bandwidth=8)
    (forced,) = [one for one in result["decisions"] if "not done after" in one["reason"]]
    assert forced["kind"] == "downtime"


def test_limits_change_while_it_runs(place: dict[str, Any]) -> None:
    source = place["hosts"][0]
    asked: list[asyncio.Task[dict[str, Any]]] = []

    def watch(event: dict[str, Any]) -> None:
        if event.get("phase") == "precopy" and event["event"] == "phase":
            change = {"op": "set", "guest": place["guest"], "bandwidth": 0}
            asked.append(asyncio.get_running_loop().create_task(ask(source.socket, **change)))

    result = migrate(place, watch, bandwidth=1, storage=True)
    assert asked[0].result()["result"] == {"bandwidth": 0}
    # At 1 MiB/s the memory alone would have taken longer than that.
    assert result["total_ms"] < 1000 * FILLED


@pytest.mark.parametrize("victim", ["source", "destination"])
def test_a_broken_post_copy_is_taken_up_again(place: dict[str, Any], victim: str) -> None:
    """Its channels end with the daemon that dies; the guest runs on and gets the rest of its memory later."""
    source, target = place["hosts"]
    killed = source if victim == "source" else target
    guest = place["guest"]

    def crash() -> None:
        killed.kill_daemon()
        killed.restart_daemon()

    # Only once the destination has the device state can a post-copy be taken up again.
    late = at("postcopy", crash, event=9)
    answer = migrate_or_die(source, guest, target, late, mode="postcopy", bandwidth=8)
    if victim == "destination":
        assert answer is not None
        assert answer["ok"], answer
        assert answer["result"]["recoveries"] >= 1
        assert "postcopy-paused" in statuses(answer["result"])
    wait_for(lambda: not list(source.base.glob("*/migrations/*-source.json")), 60, "the end of the job")
    place["hosts"] = (target, source)
    assert guest not in source.virsh("list", "--all", "--name").split()
    before = len(target.serial())
    wait_for(lambda: len(target.serial()) > before + 2, 20, "progress")


def test_only_what_lies_above_the_image_is_copied(hosts: Hosts) -> None:
    one, two = hosts
    name, image = f"o{secrets.token_hex(3)}", "/var/lib/libvirt/images/base.raw"
    one.start_guest(name, disk_mib=16, backing=image)
    wait_for(lambda: len(one.serial()) > 1, 30, "the guest's first lines")
    try:
        wanted = {"op": "migrate", "guest": name, "to": two.name, "storage": True, "backing": True}
        refused = asyncio.run(ask(one.socket, **wanted))["error"]
        assert refused["code"] == "image-missing"
        two.run("sh", "-c", f"head -c {16 << 20} /dev/zero > {image}")
        refused = asyncio.run(ask(one.socket, **wanted))["error"]
        assert refused["code"] == "wrong-image"
        two.run("cp", str(one.base / f"{name}.raw"), image)
        answer = asyncio.run(ask(one.socket, **wanted))
        assert answer["ok"], answer
        assert answer["result"]["incremental"]
        assert answer["result"]["bytes_qemu"]["nbd"] < 1 << 20, "the image itself was not copied"
        before = len(two.serial())
        wait_for(lambda: len(two.serial()) > before + 2, 20, "progress")
    finally:
        for host in hosts:
            host.forget(name)
            host.run("rm", "-f", image)
