"""Whole migrations of the real daemons between two simulated hypervisors, with faults at exact instants."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.migration import libvirtcalls
from tests.migration.simulated import Guest, Host, Plan
from xiatb.errors import UsageError
from xiatb.migration.beginning import Beginnings
from xiatb.migration.failure import MigrationError
from xiatb.migration.fence import Fence
from xiatb.migration.hostpolicy import Policy, Rule
from xiatb.migration.options import Options

Scenario = Callable[[Host, Host, Plan], Awaitable[None]]


def play(scenario: Scenario) -> None:
    async def run() -> None:
        base = Path(tempfile.mkdtemp(prefix="xs", dir="/tmp"))  # short: UNIX socket paths
        plan = Plan()
        one, two = Host("hv1", base, plan), Host("hv2", base, plan)
        try:
            await one.start([two])
            await two.start([one])
            async with asyncio.timeout(60):
                await scenario(one, two, plan)
        finally:
            for host in (one, two):
                await host.stop()
            shutil.rmtree(base)

    asyncio.run(run())


async def migrate(source: Host, guest: str, to: Host, **options: Any) -> Any:
    wanted = Options(**options)
    return await source.ask(
        lambda s: s.migrate(guest, to.name, storage=False, emit=lambda event: None, options=wanted)
    )


async def settled(guest: str, *hosts: Host) -> Host:
    """Wait for one running copy and no doubt; at no time may there be two."""
    deadline = time.monotonic() + 40
    while True:
        copies = [g for h in hosts if (g := h.guests.get(guest)) is not None]
        assert sum(g.runs for g in copies) < 2, "two copies run"
        doubt = [p for h in hosts for p in (h.base / "state").glob("migrations/*-source.json")]
        if len(copies) == 1 and copies[0].runs and not doubt:
            return copies[0].host
        assert time.monotonic() < deadline, [
            doubt, *((g.host.name, g.alive, g.wants, g.frozen) for g in copies),
            *((h.name, await h.ask(_status)) for h in hosts),
        ]  # fmt: skip
        await asyncio.sleep(0.005)


async def _status(service: Any) -> Any:
    return service.status()


async def bare(*hosts: Host) -> None:
    """No socket of a job is left."""
    left: list[Path] = []
    for _ in range(1500):
        left = [path for host in hosts for path in (host.base / "run").glob("*")]
        if not left:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(left)


def watch(guest: str, *hosts: Host) -> asyncio.Task[None]:
    """Fails when two copies run at any time that it looks."""

    async def look() -> None:
        while True:
            running: list[Guest] = [g for h in hosts if (g := h.guests.get(guest)) is not None and g.runs]
            assert len(running) < 2, "two copies run"
            await asyncio.sleep(0.001)

    return asyncio.ensure_future(look())


@pytest.mark.parametrize("encrypt", [True, False])
def test_there_and_back(encrypt: bool) -> None:
    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        for source, to in ((one, two), (two, one)):
            result = await migrate(source, "g", to, encrypt=encrypt)
            assert result["encrypted"] == encrypt
            assert result["bytes_qemu"]["ram"] == 1 << 20
            assert result["downtime_ms"] > 0
            assert await settled("g", one, two) is to

    play(scenario)


@pytest.mark.parametrize("step", ["ram", "stop", "finish", "started", "answered"])
@pytest.mark.parametrize("victim", ["source", "destination"])
def test_a_daemon_dies(step: str, victim: str) -> None:
    """At any step one copy runs on in the end, and the destination's from the step at which it started."""

    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        dead = one if victim == "source" else two
        plan.at[step] = dead.crash
        looking = watch("g", one, two)
        moving = asyncio.ensure_future(migrate(one, "g", two))
        while step in plan.at:
            await asyncio.sleep(0.002)
        await dead.start_daemon()
        here = await settled("g", one, two)
        assert (here is two) == (step in ("started", "answered"))
        if victim == "destination":
            try:
                assert (await moving)["to"] == "hv2"
                assert here is two
            except MigrationError:
                assert here is one
        assert not looking.done()
        looking.cancel()
        await bare(one, two)

    play(scenario)


def test_the_destination_cannot_start_the_guest() -> None:
    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        plan.start_fails = True
        with pytest.raises(MigrationError) as caught:
            await migrate(one, "g", two)
        assert "did not start" in caught.value.message
        assert await settled("g", one, two) is one

    play(scenario)


@pytest.mark.parametrize("step", ["ram", "stop", "finish"])
def test_cancelled_at_any_time_before_the_hand_over(step: str) -> None:
    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        assert one.daemon is not None
        service, loop = one.daemon.service, one.daemon.loop
        plan.at[step] = lambda: loop.call_soon_threadsafe(service.cancel, "g")
        try:
            await migrate(one, "g", two)
        except MigrationError as error:
            assert error.code == "cancelled"
            assert await settled("g", one, two) is one
        else:
            assert await settled("g", one, two) is two

    play(scenario)


def test_cancelled_before_the_destination_has_answered() -> None:
    """The user waits for a host that does not answer, and gives up: nothing is left under way."""

    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        assert one.daemon is not None
        carrier, dialled = one.daemon.service._carrier, threading.Event()
        dial = carrier.dial

        async def silent(*_: Any) -> Any:
            dialled.set()
            await asyncio.Event().wait()

        async def cancel(service: Any) -> Any:
            return service.cancel("g")

        async def show(service: Any) -> Any:
            return service.outgoing("g")

        carrier.dial = silent
        moving = asyncio.ensure_future(migrate(one, "g", two))
        assert await asyncio.to_thread(dialled.wait, 30)
        assert (await one.ask(_status))["outgoing"] == [{"guest": "g", "job": "", "state": "beginning"}]
        with pytest.raises(UsageError, match="hardly begun"):
            await one.ask(show)
        assert await one.ask(cancel)
        with pytest.raises(MigrationError) as caught:
            await moving
        assert caught.value.code == "cancelled"
        assert (await one.ask(_status))["outgoing"] == []
        carrier.dial = dial
        await migrate(one, "g", two)
        assert await settled("g", one, two) is two

    play(scenario)


def test_a_session_that_comes_as_it_is_cancelled_is_ended() -> None:
    async def body() -> None:
        beginnings, ended = Beginnings(), []
        link: Any = SimpleNamespace(abort=lambda: ended.append("link"))
        request: Any = None

        async def work() -> Any:
            beginnings.cancel("g")
            return request, link

        with pytest.raises(MigrationError, match="cancelled by the user"):
            await beginnings.run("g", work())
        assert ended == ["link"] and "g" not in beginnings

    asyncio.run(body())


def test_without_the_fence_two_copies_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt's own window, which the fence closes: the tests above can fail."""
    monkeypatch.setattr(Fence, "freeze", lambda self: None)

    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        plan.at["started"] = one.crash
        moving = asyncio.ensure_future(migrate(one, "g", two))
        while "started" in plan.at:
            await asyncio.sleep(0.001)
        with pytest.raises(AssertionError, match="two copies run"):
            await settled("g", one, two)
        moving.cancel()

    play(scenario)


def test_a_policy_is_asked_at_both_sides() -> None:
    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        deny = Policy(rules=(Rule(False, ("g",), ("hv1",), ("hv2",)),))
        for host in (one, two):
            assert host.config is not None
            free, host.config = host.config, dataclasses.replace(host.config, policy=deny)
            host.crash()
            await host.start_daemon()
            with pytest.raises(MigrationError) as caught:
                await migrate(one, "g", two)
            assert caught.value.code == "policy"
            assert caught.value.message.startswith(f"{host.name}: rule 1")
            host.config = free
            host.crash()
            await host.start_daemon()
        with pytest.raises(MigrationError, match="asks for encrypted"):
            assert two.config is not None
            two.config = dataclasses.replace(two.config, policy=Policy(require=("encryption",)))
            two.crash()
            await two.start_daemon()
            await migrate(one, "g", two, encrypt=False)
        await migrate(one, "g", two)
        assert await settled("g", one, two) is two

    play(scenario)


def test_a_peer_cannot_bring_another_guest_than_was_admitted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """hv1's libvirtd asks hv2's for a guest of another name than its daemon was let move."""
    described = libvirtcalls.description

    def other(name: str) -> str:
        return described("vm9")

    monkeypatch.setattr(libvirtcalls, "description", other)

    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("vm1")
        with pytest.raises(MigrationError):
            await migrate(one, "vm1", two)
        assert not two.guests, "no call has reached libvirtd there"
        assert await settled("vm1", one, two) is one
        await bare(one, two)

    play(scenario)
    assert "refused on the rpc channel: program 0x20008086 procedure 303" in caplog.text
