"""A connection to QEMU's own protocol beside libvirt's, for a command that libvirt cannot bring through.

QEMU 7.2 under TCG can miss a page of a post-copy in the middle of an interrupt, and then waits for it with
its main lock held. When the stream has broken, nothing that needs this lock is answered any more, and
libvirt's own recovery begins with such a question (`query-migrate`). Commands "out of band" (QEMU's
docs/interop/qmp-spec) run in a thread of their own without the lock; `migrate-recover` is one. libvirt sends
none for others while a guest comes in. The right to send them must have been asked for while QEMU still
answered, so the connection is opened before the switch and kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError

log = logging.getLogger("xiatb.migration")
OPEN_S = 2.0
ANSWER_S = 2.0
PAUSE_S, AGAIN_S = 5.0, 0.1
"""How long QEMU may take to notice that its stream has gone, and how often it is asked meanwhile."""
LINE = 1 << 20
"""Bytes of the longest line that is read."""


class MonitorError(XiatbError):
    """QEMU does not answer, or refuses."""


class QemuMonitor:
    """One guest's, at the UNIX socket `path`, which the guest's definition names (guests/domain.xml.j2)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Connect and ask for the right to send out of band; nothing happens when that is done. Raises
        MonitorError, also when QEMU does not answer in OPEN_S."""
        async with self._opening:
            if self._reader is not None and not self._reader.done():
                return
            try:
                async with asyncio.timeout(OPEN_S):
                    reader, self._writer = await asyncio.open_unix_connection(str(self._path), limit=LINE)
                    self._reader = asyncio.ensure_future(self._read(reader))
                    await self._ask("execute", "qmp_capabilities", {"enable": ["oob"]})
            except (OSError, MonitorError) as error:
                await self.close()
                raise MonitorError(f"{self._path.name}: {str(error) or type(error).__name__}") from None

    async def recover(self, uri: str) -> None:
        """Let the paused post-copy here wait for a new stream at `uri`, whatever QEMU is waiting for; raises
        MonitorError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PAUSE_S
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self._ask("exec-oob", "migrate-recover", {"uri": uri})
            except TimeoutError:
                raise MonitorError("QEMU does not answer out of band") from None
            except MonitorError as error:
                if "paused" not in error.message or loop.time() > end:
                    raise
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def close(self) -> None:
        """End the connection."""
        if self._writer is not None:
            self._writer.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _ask(self, how: str, command: str, arguments: dict[str, Any]) -> None:
        if self._writer is None or self._reader is None or self._reader.done():
            raise MonitorError("not connected")
        self._number += 1
        number = self._number
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            asked = {how: command, "arguments": arguments, "id": number}
            self._writer.write(json.dumps(asked).encode() + b"\n")
            told = await answer
        finally:
            del self._answers[number]
        if "error" in told:
            raise MonitorError(f"{command}: {told['error'].get('desc')}")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Answers go to who asked; events are libvirt's business."""
        try:
            while line := await reader.readline():
                told = json.loads(line)
                number = told.get("id") if isinstance(told, dict) else None
                waiting = self._answers.get(number) if isinstance(number, int) else None
                if waiting is not None and not waiting.done():
                    waiting.set_result(told)
        except (OSError, ValueError) as error:
            log.info("%s: %s", self._path.name, error)
        finally:
            for waiting in self._answers.values():
                if not waiting.done():
                    waiting.set_exception(MonitorError("QEMU has closed the connection"))


async def reopened(monitor: QemuMonitor, uri: str, name: str) -> bool:
    """Whether QEMU here now waits for a new stream of its post-copy at `uri`; if not, libvirt must see to it.
    `name` is for the log."""
    try:
        await monitor.open()
        await monitor.recover(uri)
    except MonitorError as error:
        log.info("%s: recovery is left to libvirt: %s", name, error.message)
        return False
    return True
