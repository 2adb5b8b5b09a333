"""One call of libvirt's migration at the source, and the channels that it goes over.

A migration has one; a post-copy that broke has another one for every attempt to take it up again. All of them
put their relays into one set, so that what was carried is counted together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xiatb.migration import params
from xiatb.migration.channels import Dial, RelaySet, SourceChannels
from xiatb.migration.driver import Driver, DriverError
from xiatb.migration.messages import Channel, Request
from xiatb.migration.meter import SWITCH_FLOOR
from xiatb.migration.monitor import AGAIN_S, PAUSE_S
from xiatb.migration.options import Options
from xiatb.migration.relay import Gate, Observer

log = logging.getLogger("xiatb.migration")
STUCK_S = 1.0
"""How long libvirt's call may take to return once its channels are closed."""
PATIENCE_S = 60.0
"""How long a recovery may carry nothing; then it is given up, and another one begins."""
SETTLE_S = 5.0
"""How long libvirt may take to see that a migration that it had given up has ended well."""
CANCEL_TIMES, CANCEL_AGAIN_S = 8, 0.3
"""How often libvirt is asked to give up, and how far apart."""
Watches = Mapping[str, Callable[[], tuple[Observer, Observer]]]
"""Makes the two observers of each channel of a kind, in the order in which these are opened."""


def recovery_failed(attempt: int, reason: str) -> dict[str, Any]:
    """What the user is shown when the attempt of that number to go on with a broken post-copy has failed; an
    entry among the decisions, see controller.words."""
    return {"kind": "recovery", "value": attempt, "reason": reason, "by": "post-copy",
            "t_ns": time.monotonic_ns()}  # fmt: skip


class Transfer:
    """Call `run` once; `close` ends it early."""

    def __init__(
        self,
        request: Request,
        options: Options,
        driver: Driver,
        directory: Path,
        relays: RelaySet,
    ) -> None:
        self._request = request
        self._options = options
        self._driver = driver
        self._directory = directory
        self._relays = relays
        self._channels: SourceChannels | None = None
        self._over = asyncio.Event()
        self._direct = False
        self._came: asyncio.Future[str] | None = None
        self._resumed = self._closed = False

    def open(
        self,
        granted: tuple[Channel, ...],
        channel_key: bytes,
        dial: Dial,
        watches: Watches,
        gates: dict[str, Gate],
        on_open: Callable[[str, int], None],
        on_end: Callable[[str], None],
    ) -> None:
        """Listen for libvirt and QEMU; raises OSError."""
        job = self._request.job
        self._direct = not any(channel.kind == "rpc" for channel in granted)
        self._channels = SourceChannels(
            job, granted, channel_key, dial, watches, gates, on_open, self._relays
        )
        self._channels.on_end = on_end
        if self._request.mode == "postcopy":
            self._channels.floor = SWITCH_FLOOR
        self._channels.listen("rpc", params.rpc_socket(self._directory, job))
        self._channels.listen("ram", params.ram_socket(self._directory, job))
        if self._request.storage:
            self._channels.listen("nbd", params.disk_socket(self._directory, job))

    async def run(self, *, resume: bool = False) -> str:
        """Let libvirt migrate, or go on with a post-copy that broke; "" or libvirt's reason for a failure.

        A recovery that carries nothing for PATIENCE_S is given up."""
        if not resume:
            return await self._migrate(resume=False)
        work = asyncio.ensure_future(self._resume_qemu() if self._direct else self._migrate(resume=True))
        carried = -1
        while carried != (carried := self._relays.moved("ram")):
            if (await asyncio.wait([work], timeout=PATIENCE_S))[0]:
                return work.result()
        await self.close(0.0)
        return f"the recovery carried nothing for {PATIENCE_S:g} s"

    def on_status(self, status: str) -> None:
        """QEMU's migration here has a new status."""
        if status == "postcopy-recover":
            self._resumed = True  # a pause before that is the end of the stream that broke
        elif status == "completed" or (status == "postcopy-paused" and self._resumed):
            self._end(status)

    def _end(self, status: str) -> None:
        if self._came is not None and not self._came.done():
            self._came.set_result(status)

    async def _resume_qemu(self) -> str:
        """QEMU there waits for the stream already: have QEMU here send it. libvirt at both sides sees the
        migration end, which it had given up, and settles it (qemuMigrationProcessUnattended)."""
        request, loop = self._request, asyncio.get_running_loop()
        uri, end = f"unix:{params.ram_socket(self._directory, request.job)}", loop.time() + PAUSE_S
        try:
            while True:
                try:
                    self._came = loop.create_future()
                    await self._driver.ask_qemu(request.guest, "migrate", uri=uri, resume=True)
                    break
                except DriverError as error:
                    if "paused" not in error.message or self._closed or loop.time() > end:
                        return error.message
                await asyncio.sleep(AGAIN_S)
            status = await self._came
        finally:
            self._over.set()
        if status != "completed":
            return self._explained("the stream broke again")
        await self._forget()
        return ""

    async def _forget(self) -> None:
        """libvirt ends the copy here by itself, but keeps its definition unless it drove the end."""
        loop, guest = asyncio.get_running_loop(), self._request.guest
        end = loop.time() + SETTLE_S
        try:
            while await self._driver.state(guest) not in ("absent", "off") and loop.time() < end:
                await asyncio.sleep(AGAIN_S)
            await self._driver.destroy(guest)
        except DriverError as error:
            log.warning("%s: %s", guest, error)

    async def _migrate(self, *, resume: bool) -> str:
        request, directory = self._request, self._directory
        if resume:
            parameters = params.recovery_parameters(request, directory)
            flags = params.recovery_flags(request, self._options)
        else:
            parameters = params.migration_parameters(request, directory, self._options)
            flags = params.migration_flags(request, self._options)
        try:
            await self._driver.migrate(
                request.guest, params.destination_uri(directory, request.job), parameters, flags
            )
        except DriverError as error:
            return self._explained(str(error) or "libvirt gave no reason")
        finally:
            self._over.set()
        return ""

    def _explained(self, reason: str) -> str:
        """libvirt's reason and, when a channel broke, what it is that broke: libvirt sees only the end."""
        relays = self._channels.relays.relays if self._channels is not None else []
        broken = next((relay.error for _, relay in relays if relay.error), "")
        return f"{reason} ({broken})" if broken else reason

    async def cancel(self) -> None:
        """Let libvirt give the migration up. What the block mirror has in flight (up to 16 MiB) need not
        arrive: QEMU would end the mirror only after that, which takes seconds on a slow or capped path."""
        for _ in range(CANCEL_TIMES):
            await self._driver.abort(self._request.guest)  # nothing happens before libvirt's job has begun
            self._relays.cut("nbd")
            await self.ended(CANCEL_AGAIN_S)
            if self._over.is_set():
                return

    async def close(self, grace: float | None = None) -> None:
        """Close the channels; with `grace` after so many seconds even if they still carry something.

        QEMU's word on their end may go to the attempt that comes after this one, so it is not waited for."""
        self._closed = True
        self._end("postcopy-paused")
        if self._channels is None:
            self._over.set()  # nothing has begun, and nothing will
        if self._channels is not None:
            await (self._channels.close() if grace is None else self._channels.close(grace))

    async def give_up(self) -> None:
        """Close the channels, and see to it that libvirt's call returns.

        libvirt 9.0 (qemuMigrationSrcRun) waits for QEMU's STOP after its pause before the switchover, until
        the guest is not running. A cancellation that comes just then lets the guest run on before libvirt has
        looked: it waits for ever. Another stop wakes it; it then finds the migration cancelled and lets the
        guest run.
        """
        await self.close(0.0)
        await self.ended(STUCK_S)
        if not self._over.is_set():
            log.warning("%s: libvirt does not give up: the guest stops an instant", self._request.guest)
            try:
                await self._driver.pause(self._request.guest)
                await self.ended(STUCK_S)
                await self._driver.resume(self._request.guest)
            except DriverError as error:
                log.warning("%s: %s", self._request.guest, error)

    async def ended(self, seconds: float) -> None:
        """Wait for libvirt's call to return, at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
