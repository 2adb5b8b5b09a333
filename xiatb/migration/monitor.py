"""A way into QEMU's own protocol beside libvirt's, for a command that libvirt cannot bring through.

QEMU 7.2 under TCG can miss a page of a post-copy in the middle of an interrupt, and then waits for it with
its main lock held. When the stream has broken, nothing that needs this lock is answered any more, and
libvirt's own recovery begins with such a question (`query-migrate`). Commands "out of band" (QEMU's
docs/interop/qmp-spec) run in a thread of their own without the lock; `migrate-recover` is one. libvirt sends
none for others while a guest comes in.

The right to send them must be asked for while QEMU still answers, and a monitor at a socket forgets it with
the connection: a daemon that was started again could not get it back. So the monitor is at a pair of named
pipes (QEMU's chardev `pipe`), which QEMU holds open itself: it has no connection to lose, and what one daemon
was given holds for the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
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
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class MonitorError(XiatbError):
    """QEMU does not answer, or refuses."""


class QemuMonitor:
    """One guest's, at the pipes `path`.in (to QEMU) and `path`.out, which the guest's definition names
    (guests/domain.xml.j2)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: asyncio.Task[None] | None = None
        self._to_qemu = -1
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._may = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Get the right to send out of band; nothing happens when that is done. Raises MonitorError, also
        when QEMU does not answer in OPEN_S."""
        await self._connect()
        if self._may:
            return
        try:
            async with asyncio.timeout(OPEN_S):
                refused = await self._ask("execute", "qmp_capabilities", {"enable": ["oob"]})
        except TimeoutError:
            raise MonitorError(f"{self._path.name}: QEMU does not answer") from None
        # "CommandNotFound" (sic): the negotiation is over, a daemon before this one has done it.
        if refused is not None and refused.get("class") != "CommandNotFound":
            raise MonitorError(f"{self._path.name}: {refused.get('desc')}")
        self._may = True

    async def recover(self, uri: str) -> None:
        """Let the paused post-copy here wait for a new stream at `uri`, whatever QEMU is waiting for; raises
        MonitorError."""
        await self._connect()
        loop = asyncio.get_running_loop()
        end = loop.time() + PAUSE_S
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    refused = await self._ask("exec-oob", "migrate-recover", {"uri": uri})
            except TimeoutError:
                raise MonitorError("QEMU does not answer out of band") from None
            if refused is None:
                return
            refusal = str(refused.get("desc"))
            if "exec-oob" in refusal and not self._may:  # no daemon has asked for the right yet
                await self.open()
            elif "paused" not in refusal or loop.time() > end:
                raise MonitorError(f"migrate-recover: {refusal}")
            else:
                await asyncio.sleep(AGAIN_S)

    async def close(self) -> None:
        """Let go of the pipes; QEMU notices nothing."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _connect(self) -> None:
        """Take the pipes, unless that is done; raises MonitorError, also when no QEMU has them."""
        async with self._opening:
            if self._reader is not None and not self._reader.done():
                return
            self._may = False
            loop, lines, to_qemu = asyncio.get_running_loop(), asyncio.StreamReader(limit=LINE), -1
            try:
                to_qemu = os.open(f"{self._path}.in", os.O_WRONLY | _FLAGS)  # ENXIO: nobody reads there
                file = os.fdopen(os.open(f"{self._path}.out", os.O_RDONLY | _FLAGS), "rb", buffering=0)
                pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), file)
            except (OSError, ValueError) as error:  # ValueError: it is no pipe
                if to_qemu >= 0:
                    os.close(to_qemu)
                raise MonitorError(f"{self._path.name}: {error}") from None
            self._to_qemu = to_qemu
            self._reader = asyncio.ensure_future(self._read(lines, pipe, to_qemu))

    async def _ask(self, how: str, command: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """None when QEMU has done it, else its error. What daemons before this one have asked is not mistaken
        for it."""
        number = secrets.token_hex(8)
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            asked = {how: command, "arguments": arguments, "id": number}
            os.write(self._to_qemu, json.dumps(asked).encode() + b"\n")  # below PIPE_BUF: whole or not at all
            told: dict[str, Any] = await answer
        except OSError as error:
            raise MonitorError(f"{self._path.name}: {error}") from None
        finally:
            del self._answers[number]
        if "error" not in told:
            return None
        return told["error"] if isinstance(told["error"], dict) else {}

    async def _read(self, lines: asyncio.StreamReader, pipe: asyncio.BaseTransport, to_qemu: int) -> None:
        """Answers go to who asked; events, and what is left of earlier daemons, are nobody's."""
        try:
            while line := await lines.readline():
                told = _parsed(line)
                waiting = self._answers.get(str(told.get("id")))
                if waiting is not None and not waiting.done():
                    waiting.set_result(told)
        except (OSError, ValueError) as error:  # ValueError: a line longer than LINE
            log.info("%s: %s", self._path.name, error)
        finally:
            pipe.close()
            os.close(to_qemu)
            for waiting in self._answers.values():
                if not waiting.done():
                    waiting.set_exception(MonitorError("QEMU has closed its monitor"))


def _parsed(line: bytes) -> dict[str, Any]:
    """A line of QEMU; {} for half a line, which a reader that died may have left."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


async def reopened(monitor: QemuMonitor, uri: str, name: str) -> bool:
    """Whether QEMU here now waits for a new stream of its post-copy at `uri`; if not, libvirt must see to it.
    `name` is for the log."""
    try:
        await monitor.recover(uri)
    except MonitorError as error:
        log.info("%s: recovery is left to libvirt: %s", name, error.message)
        return False
    return True
