"""The second monitor (migration/monitor.py) of a simulated QEMU whose main lock is held while a post-copy is
broken: what is asked in band waits, out of band is answered. Like QEMU's chardev `pipe` it holds both ends
of its pipes open, and so what has been negotiated outlives whoever has negotiated it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.migration.simguest import GUEST, Copy, remove

NOT_YET = {"class": "GenericError", "desc": "QMP input member 'exec-oob' is unexpected"}
NOT_PAUSED = {"desc": "Migrate recover can only be run when postcopy is paused."}
DONE = {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}


def paths_of(copy: Copy) -> tuple[Path, Path]:
    """The pipe to QEMU, and the one from it."""
    return copy.host.runtime / f"qmp-{GUEST}.in", copy.host.runtime / f"qmp-{GUEST}.out"


async def unlocked(copy: Copy) -> None:
    """Wait until QEMU can take its main lock."""
    while copy.alive and copy.host.world.locked(copy):
        await asyncio.sleep(0.5)


class Monitor:
    """`recover` is called with the path at which QEMU then listens."""

    def __init__(self, copy: Copy, recover: Callable[[Path], Any]) -> None:
        self._copy = copy
        self._recover = recover
        self._negotiated = False
        self._out = -1
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> None:
        """Until the process ends."""
        for path in paths_of(self._copy):
            remove(path)
            os.mkfifo(path)
        inward, outward = (os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in paths_of(self._copy))
        self._out, lines = outward, asyncio.StreamReader()
        loop, file = asyncio.get_running_loop(), os.fdopen(inward, "rb", buffering=0)
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), file)
        self._tell({"QMP": {"version": {}, "capabilities": ["oob"]}})
        self._tasks.append(asyncio.ensure_future(self._listen(lines)))
        try:
            await self._copy.died.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            pipe.close()
            os.close(outward)
            for path in paths_of(self._copy):
                remove(path)

    async def _listen(self, lines: asyncio.StreamReader) -> None:
        while True:
            asked = json.loads(await lines.readline())
            if "execute" in asked:
                self._tasks.append(asyncio.ensure_future(self._negotiate(asked)))
            elif not self._negotiated:
                self._tell({"error": NOT_YET, "id": asked["id"]})
            elif asked["exec-oob"] != "migrate-recover" or self._copy.postcopy != "paused":
                self._tell({"error": NOT_PAUSED, "id": asked["id"]})
            else:
                self._recover(Path(asked["arguments"]["uri"].removeprefix("unix:")))
                await asyncio.sleep(0.01)
                self._tell({"event": "MIGRATION", "data": {}})
                self._tell({"return": {}, "id": asked["id"]})

    async def _negotiate(self, asked: dict[str, Any]) -> None:
        await unlocked(self._copy)
        told: dict[str, Any] = {"error": DONE} if self._negotiated else {"return": {}}
        self._tell({**told, "id": asked["id"]})
        self._negotiated = True

    def _tell(self, what: dict[str, Any]) -> None:
        os.write(self._out, json.dumps(what).encode() + b"\r\n")
