"""The second monitor (migration/monitor.py) of a simulated QEMU whose main lock is held while a post-copy is
broken: what is asked in band waits, out of band is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.migration.simguest import GUEST, Copy, remove


def path_of(copy: Copy) -> Path:
    return copy.host.runtime / f"qmp-{GUEST}.sock"


async def unlocked(copy: Copy) -> None:
    """Wait until QEMU can take its main lock."""
    while copy.alive and copy.host.world.locked(copy):
        await asyncio.sleep(0.5)


async def serve(copy: Copy, recover: Callable[[Path], Any]) -> None:
    """Until the process ends; `recover` is called with the path at which it then listens."""
    writers: list[Any] = []

    async def connected(reader: Any, writer: Any) -> None:
        writers.append(writer)
        writer.write(b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n')
        with contextlib.suppress(OSError, EOFError):
            while line := await reader.readline():
                asked = json.loads(line)
                answer: dict[str, Any] = {"return": {}}
                if "execute" in asked:
                    await unlocked(copy)
                elif asked["exec-oob"] != "migrate-recover":
                    answer = {"error": {"desc": "not out of band"}}
                elif copy.postcopy != "paused":
                    answer = {"error": {"desc": "Migrate recover can only be run when postcopy is paused."}}
                else:
                    recover(Path(asked["arguments"]["uri"].removeprefix("unix:")))
                    await asyncio.sleep(0.01)
                writer.write(b'{"event": "MIGRATION", "data": {}}\r\n')
                writer.write(json.dumps({**answer, "id": asked["id"]}).encode() + b"\r\n")

    server = await asyncio.start_unix_server(connected, str(path_of(copy)))
    try:
        await copy.died.wait()
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        remove(path_of(copy))
