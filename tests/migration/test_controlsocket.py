"""A migration daemon's own socket: its answers, clients that leave or do not read, and hostile ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from xiatb.errors import UsageError
from xiatb.migration.controlsocket import DaemonSocket
from xiatb.migration.failure import MigrationError
from xiatb.migration.options import Options
from xiatb.node.control import MAX_BACKLOG
from xiatb.node.control_protocol import MAX_LINE, encode

Emit = Callable[[dict[str, Any]], None]


class Service:
    """What the socket asks of a daemon; migrations end when `over` is set."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.begun = asyncio.Event()
        self.ended: list[str] = []
        self.told = b""

    async def migrate(
        self, guest: str, to: str, *, storage: bool, emit: Emit, options: Options
    ) -> dict[str, Any]:
        emit({"event": "progress", "phase": "x"})
        self.begun.set()
        await self.over.wait()
        for _ in range(3 * MAX_BACKLOG // (len(self.told) or 1) if self.told else 0):
            emit({"event": "progress", "phase": self.told.decode()})
            await asyncio.sleep(0)
        self.ended.append(guest)
        if to == "nowhere":
            raise MigrationError("lost", "gone", hint="wait", result={"guest": guest})
        return {"guest": guest, "storage": storage}

    async def plan(self, guest: str, to: str, *, storage: bool, options: Options) -> dict[str, Any]:
        raise UsageError("no plan")

    async def change(self, guest: str, wanted: dict[str, int]) -> dict[str, int]:
        return wanted

    async def guest_states(self, names: list[str]) -> dict[str, str]:
        return dict.fromkeys(names, "absent")

    def cancel(self, guest: str) -> bool:
        return guest == "vm1"

    def switch(self, guest: str) -> bool:
        return False

    def resume(self, guest: str) -> bool:
        return True

    def status(self) -> dict[str, Any]:
        return {"host": "hv1"}


@contextlib.asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[Path, Service]]:
    path, service = tmp_path / "migrated.sock", Service()
    socket = DaemonSocket(path, service)  # type: ignore[arg-type]
    await socket.start()
    try:
        yield path, service
    finally:
        service.over.set()
        await socket.stop()
        assert not path.exists()


async def line(reader: asyncio.StreamReader) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await asyncio.wait_for(reader.readline(), 5))
    return told


def test_answers_events_and_errors(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as (path, service):
            assert os.stat(path).st_mode & 0o777 == 0o600
            reader, writer = await asyncio.open_unix_connection(str(path))
            for number, request in enumerate((
                {"op": "status"}, {"op": "cancel", "guest": "vm1"}, {"op": "switch", "guest": "vm1"},
                {"op": "resume", "guest": "vm1"}, {"op": "cancel"}, {"op": "nope"},
            )):  # fmt: skip
                writer.write(encode({"id": number, **request}))
            told = [await line(reader) for _ in range(6)]
            assert [one.get("result") for one in told[:4]] == [
                {"host": "hv1"}, {"cancelled": True}, {"accepted": False}, {"accepted": True},
            ]  # fmt: skip
            assert [one["error"]["code"] for one in told[4:]] == ["EINVAL", "ENOSYS"]
            writer.write(encode({"id": 7, "op": "plan", "guest": "vm1", "to": "hv2"}))
            error = {"code": "UsageError", "message": "no plan", "hint": "", "exit_code": 2}
            assert await line(reader) == {"id": 7, "ok": False, "error": error}
            writer.write(encode({"id": 8, "op": "states", "guests": ["a"]}))
            assert (await line(reader))["result"] == {"states": {"a": "absent"}}
            writer.write(encode({"id": 9, "op": "migrate", "guest": "vm1", "to": "nowhere"}))
            assert await line(reader) == {"id": 9, "event": "progress", "phase": "x"}
            service.over.set()
            assert (await line(reader))["error"] == {
                "code": "lost", "message": "gone", "hint": "wait", "exit_code": 1, "result": {"guest": "vm1"},
            }  # fmt: skip
            writer.close()

    asyncio.run(body())


def test_a_migration_outlives_its_client(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as (path, service):
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.write(encode({"id": 1, "op": "migrate", "guest": "vm1", "to": "hv2"}))
            await asyncio.wait_for(service.begun.wait(), 5)
            writer.close()
            await writer.wait_closed()
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(encode({"id": 2, "op": "status"}))
            assert (await line(reader))["ok"] and not service.ended
            writer.close()
        assert service.ended == ["vm1"]

    asyncio.run(body())


def test_a_client_that_does_not_read_is_cut_off_and_its_migration_goes_on(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as (path, service):
            service.told = b"x" * (MAX_BACKLOG // 64)
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(encode({"id": 1, "op": "migrate", "guest": "vm1", "to": "hv2"}))
            await asyncio.wait_for(service.begun.wait(), 5)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            service.over.set()
            async with asyncio.timeout(10):
                while not service.ended:
                    await asyncio.sleep(0.01)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            got = 0
            with contextlib.suppress(ConnectionError):
                while data := await asyncio.wait_for(reader.read(1 << 20), 5):
                    got += len(data)
            assert got < 2 * MAX_BACKLOG
            writer.close()

    asyncio.run(body())


def test_hostile_lines_get_errors_and_end_nothing(tmp_path: Path) -> None:
    rng = random.Random(4)
    values = [None, True, -1, 1e999, "", "vm1", [], {}, [{}], "x" * 5000]
    ops = ["migrate", "plan", "cancel", "set", "switch", "resume", "states", "nope", None, {}]
    keys = ["guest", "to", "storage", "guests", "mode", "streams", "congestion", "bandwidth", "id", "zz"]

    def hostile() -> bytes:
        if rng.random() < 0.3:
            return rng.randbytes(rng.randrange(40)).replace(b"\n", b"")
        request = {key: rng.choice(values) for key in rng.sample(keys, 4)}
        return json.dumps({"op": rng.choice(ops), **request}).encode()

    async def body() -> None:
        async with serving(tmp_path) as (path, service):
            service.over.set()
            reader, writer = await asyncio.open_unix_connection(str(path), limit=4 * MAX_LINE)
            for _ in range(300):
                writer.write(hostile() + b"\n" + b'{"id":"end","op":"status"}\n')
                while (await line(reader)).get("id") != "end":
                    pass
            writer.write(b"x" * (MAX_LINE + 70_000))
            while (await line(reader)).get("error", {}).get("code") != "EMSGSIZE":
                pass
            writer.close()

    asyncio.run(body())
