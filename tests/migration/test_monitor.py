"""The daemon's own way to QEMU: out of band only with leave, which outlives who has asked for it; within
bounds, whatever comes back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from xiatb.migration import monitor
from xiatb.migration.monitor import MonitorError, QemuMonitor, reopened

Answer = Callable[[dict[str, Any]], list[bytes]]
NOT_PAUSED = {"error": {"desc": "Migrate recover can only be run when postcopy is paused."}}
NOT_YET = {"error": {"class": "GenericError", "desc": "QMP input member 'exec-oob' is unexpected"}}
DONE = {"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete"}}
NEGOTIATE = {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}
RECOVER = {"exec-oob": "migrate-recover", "arguments": {"uri": "unix:/run/m.sock"}}


def reply(asked: dict[str, Any], **told: Any) -> list[bytes]:
    return [json.dumps({**(told or {"return": {}}), "id": asked["id"]}).encode()]


def meet(place: Path, answer: Answer, work: Callable[[Path], Awaitable[Any]]) -> Any:
    """`work` with the pipes of a QEMU that answers each command with the lines that `answer` gives. Like QEMU
    it holds both ends of both open."""

    async def scenario() -> Any:
        ends = []
        for name in ("q.in", "q.out"):
            os.mkfifo(place / name)
            ends.append(os.open(place / name, os.O_RDWR | os.O_NONBLOCK))
        inward, outward = ends
        os.write(outward, b'half of a line"}\r\n{"QMP": {}}\r\n')

        def heard() -> None:
            for line in os.read(inward, 1 << 16).splitlines():
                os.write(outward, b"".join(one + b"\r\n" for one in answer(json.loads(line))))

        loop = asyncio.get_running_loop()
        loop.add_reader(inward, heard)
        try:
            return await asyncio.wait_for(work(place / "q"), 20)
        finally:
            loop.remove_reader(inward)
            for end in ends:
                os.close(end)

    return asyncio.run(scenario())


async def recovered(path: Path) -> bool:
    one = QemuMonitor(path)
    try:
        return await reopened(one, "unix:/run/m.sock", "job")
    finally:
        await one.close()


async def opened(path: Path) -> None:
    one = QemuMonitor(path)
    try:
        await one.open()
        await one.open()
    finally:
        await one.close()


class Qemu:
    """Answers as QEMU does; `seen`: what was asked."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.negotiated = False

    def __call__(self, asked: dict[str, Any]) -> list[bytes]:
        self.seen.append({name: value for name, value in asked.items() if name != "id"})
        event = b'{"event": "MIGRATION", "data": {"status": "postcopy-paused"}}'
        if "execute" in asked:
            answer = reply(asked, **(DONE if self.negotiated else {}))
            self.negotiated = True
        else:
            answer = reply(asked, **({} if self.negotiated else NOT_YET))
        return [event, *answer]


def test_leave_is_asked_for_once_and_the_command_goes_out_of_band(tmp_path: Path) -> None:
    qemu = Qemu()

    async def work(path: Path) -> bool:
        one = QemuMonitor(path)
        try:
            await asyncio.gather(one.open(), one.open())
            await one.open()
            return await reopened(one, "unix:/run/m.sock", "job")
        finally:
            await one.close()

    assert meet(tmp_path, qemu, work)
    assert qemu.seen[-1] == RECOVER
    assert qemu.seen[0] == NEGOTIATE
    assert qemu.seen.count(RECOVER) == 1
    assert len(qemu.seen) <= 3  # two began at the same time


def test_another_daemon_needs_no_leave_of_its_own(tmp_path: Path) -> None:
    """So it depends on nothing that QEMU answers only when its lock is free."""
    qemu = Qemu()

    async def work(path: Path) -> bool:
        await opened(path)
        return await recovered(path)

    assert meet(tmp_path, qemu, work)
    assert qemu.seen == [NEGOTIATE, RECOVER]


def test_a_daemon_may_come_after_a_negotiation_or_before(tmp_path: Path) -> None:
    qemu = Qemu()

    async def work(path: Path) -> bool:
        first = await recovered(path)
        await opened(path)
        return first

    assert meet(tmp_path, qemu, work)
    assert qemu.seen == [RECOVER, NEGOTIATE, RECOVER, NEGOTIATE]


def test_qemu_may_need_a_moment_to_notice_the_end_of_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "AGAIN_S", 0.001)
    tries: list[int] = []

    def answer(asked: dict[str, Any]) -> list[bytes]:
        if "exec-oob" not in asked:
            return reply(asked)
        tries.append(asked["id"])
        return reply(asked, **({} if len(tries) == 3 else NOT_PAUSED))

    assert meet(tmp_path, answer, recovered)
    assert len(tries) == 3


@pytest.mark.parametrize(
    "line", [b"not json", b"[1]", b'"text"', b'{"id": {"a": 1}}', b'{"id": 7}', b"x" * 60_000, b""]
)
def test_strange_lines_end_in_a_refusal(line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ANSWER_S", 0.05)
    monkeypatch.setattr(monitor, "LINE", 16384)
    assert not meet(tmp_path, lambda _: [line], recovered)


@pytest.mark.parametrize("error", ["text", {}, {"desc": 7}, None])
def test_strange_errors_are_refusals(error: Any, tmp_path: Path) -> None:
    assert not meet(tmp_path, lambda asked: reply(asked, error=error), recovered)


def test_silence_and_absence_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "OPEN_S", 0.02)
    monkeypatch.setattr(monitor, "ANSWER_S", 0.02)
    places = [tmp_path / name for name in ("a", "b")]
    for place in places:
        place.mkdir()
    with pytest.raises(MonitorError, match="QEMU does not answer"):
        meet(places[0], lambda _: [], opened)

    async def recover(path: Path) -> None:
        one = QemuMonitor(path)
        try:
            await one.recover("unix:/x")
        finally:
            await one.close()

    with pytest.raises(MonitorError, match="does not answer out of band"):
        meet(places[1], lambda _: [], recover)
    with pytest.raises(MonitorError, match="No such device"):  # QEMU has gone
        asyncio.run(recover(places[1] / "q"))
    (places[1] / "q.in").unlink()
    with pytest.raises(MonitorError, match="No such file"):
        asyncio.run(recover(places[1] / "q"))


def test_the_end_of_qemu_ends_what_waits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        ends = []
        for name in ("q.in", "q.out"):
            os.mkfifo(tmp_path / name)
            ends.append(os.open(tmp_path / name, os.O_RDWR | os.O_NONBLOCK))
        asked = asyncio.ensure_future(opened(tmp_path / "q"))
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(ends[0], came.set)
        await asyncio.wait_for(came.wait(), 20)
        loop.remove_reader(ends[0])
        for end in ends:
            os.close(end)
        with pytest.raises(MonitorError, match="has closed"):
            await asyncio.wait_for(asked, 20)

    asyncio.run(scenario())
