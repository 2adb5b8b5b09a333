"""The daemon's own connection to QEMU: out of band only with leave, within bounds, whatever comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from xiatb.migration import monitor
from xiatb.migration.monitor import MonitorError, QemuMonitor, reopened

Answer = Callable[[dict[str, Any]], list[bytes]]
NOT_PAUSED = {"error": {"desc": "Migrate recover can only be run when postcopy is paused."}}


def reply(asked: dict[str, Any], **told: Any) -> list[bytes]:
    return [json.dumps({**(told or {"return": {}}), "id": asked["id"]}).encode()]


def meet(place: Path, answer: Answer, work: Callable[[QemuMonitor], Awaitable[Any]]) -> Any:
    """`work` with a monitor whose QEMU answers each command with the lines that `answer` gives."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\r\n')
        while line := await reader.readline():
            for one in answer(json.loads(line)):
                writer.write(one + b"\r\n")
        writer.close()

    async def scenario() -> Any:
        server = await asyncio.start_unix_server(connected, str(place / "q"))
        one = QemuMonitor(place / "q")
        try:
            return await asyncio.wait_for(work(one), 20)
        finally:
            await one.close()
            server.close()

    return asyncio.run(scenario())


def test_leave_is_asked_for_once_and_the_command_goes_out_of_band(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def answer(asked: dict[str, Any]) -> list[bytes]:
        seen.append(asked)
        return [b'{"event": "MIGRATION", "data": {"status": "postcopy-paused"}}', *reply(asked)]

    async def work(one: QemuMonitor) -> bool:
        await one.open()
        return await reopened(one, "unix:/run/m.sock", "job")

    assert meet(tmp_path, answer, work)
    assert seen == [
        {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}, "id": 1},
        {"exec-oob": "migrate-recover", "arguments": {"uri": "unix:/run/m.sock"}, "id": 2},
    ]


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

    assert meet(tmp_path, answer, lambda one: reopened(one, "unix:/x", "job"))
    assert len(tries) == 3


@pytest.mark.parametrize(
    "line", [b"not json", b"[1]", b'"text"', b'{"id": {"a": 1}}', b'{"id": 7}', b"x" * 100_000, b""]
)
def test_strange_lines_end_in_an_answer_or_a_refusal(
    line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "OPEN_S", 0.05)
    monkeypatch.setattr(monitor, "LINE", 65536)
    assert not meet(tmp_path, lambda _: [line], lambda one: reopened(one, "unix:/x", "job"))


def test_silence_and_absence_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "OPEN_S", 0.02)
    monkeypatch.setattr(monitor, "ANSWER_S", 0.02)
    with pytest.raises(MonitorError, match="TimeoutError"):
        meet(tmp_path, lambda _: [], lambda one: one.open())

    async def work(one: QemuMonitor) -> None:
        await one.open()
        await one.recover("unix:/x")

    with pytest.raises(MonitorError, match="does not answer out of band"):
        meet(tmp_path, lambda asked: reply(asked) if "execute" in asked else [], work)
    (tmp_path / "q").unlink()
    with pytest.raises(MonitorError, match="No such file"):
        asyncio.run(QemuMonitor(tmp_path / "q").open())
