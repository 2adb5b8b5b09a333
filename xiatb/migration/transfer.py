"""One call of libvirt's migration at the source, and the channels that it goes over.

A migration has one; a post-copy that broke has another one for every attempt to take it up again. All of them
put their relays into one set, so that what was carried is counted together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from xiatb.migration import params
from xiatb.migration.channels import Dial, RelaySet, SourceChannels
from xiatb.migration.driver import Driver, DriverError
from xiatb.migration.messages import Channel, Request
from xiatb.migration.options import Options
from xiatb.migration.relay import Gate, Observer

Watches = Mapping[str, Callable[[], tuple[Observer, Observer]]]
"""Makes the two observers of each channel of a kind, in the order in which these are opened."""


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
        self._channels = SourceChannels(
            job, granted, channel_key, dial, watches, gates, on_open, self._relays
        )
        self._channels.on_end = on_end
        self._channels.listen("rpc", params.rpc_socket(self._directory, job))
        self._channels.listen("ram", params.ram_socket(self._directory, job))
        if self._request.storage:
            self._channels.listen("nbd", params.disk_socket(self._directory, job))

    async def run(self, *, resume: bool = False) -> str:
        """Let libvirt migrate, or go on with a post-copy that broke; "" or libvirt's reason for a failure."""
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

    def cut(self) -> asyncio.Future[None]:
        """Close the local ends of all channels, so that libvirt's call fails; a task to wait for."""
        return asyncio.ensure_future(self.close(0.0))

    async def close(self, grace: float | None = None) -> None:
        """Close the channels; with `grace` after so many seconds even if they still carry something."""
        if self._channels is not None:
            await (self._channels.close() if grace is None else self._channels.close(grace))

    async def ended(self, seconds: float) -> None:
        """Wait for libvirt's call to return, at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
