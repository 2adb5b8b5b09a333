"""The first pages of a post-copy: QEMU at the destination loads the devices before the guest may run, and
looks into the rings of its virtio devices while it does. Each of these pages would cost a round trip, behind
all that QEMU has sent meanwhile. So they are asked for in the destination's name as soon as the guest has
stopped, and QEMU may send little else until it runs again.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from xiatb.migration.channels import RelaySet
from xiatb.migration.driver import DriverError
from xiatb.migration.messages import Message, Request, Resumed
from xiatb.migration.meter import FLOOR
from xiatb.migration.params import QUIET_MIB
from xiatb.migration.relay import Relay

PAGE: Final = 4096
LOW_MEMORY: Final = 2 << 30
"""Below this a guest-physical address is the offset in the block of memory (QEMU hw/i386/pc_q35.c)."""
MOST_QUEUES: Final = 8
EASE_S: Final = 3.0
"""Longest time that QEMU is held back after the switch: a guest that does not run by then waits for something
else than a crowded path."""
_REQ_PAGES: Final = 4
_REQ_PAGES_ID: Final = 3
_RECV_BITMAP: Final = 5
_HEAD: Final = struct.Struct(">HH")
log = logging.getLogger("xiatb.migration")


class Hypervisor(Protocol):
    """What of the driver is needed here."""

    async def ask_qemu(self, name: str, command: str, **arguments: Any) -> Any:
        """See Driver."""

    async def set_bandwidth(self, name: str, mib: int) -> None:
        """See Driver."""

    async def start_postcopy(self, name: str) -> None:
        """See Driver."""


@dataclass(frozen=True)
class PageRange:
    """Bytes `start` to `start + size` of QEMU's block of memory `block`; both whole pages."""

    block: str
    start: int
    size: int

    def pack(self) -> bytes:
        """A REQ_PAGES_ID message of QEMU's return path (QEMU 7.2 migration/migration.c): be16 type, be16
        length, be64 start, be32 size, u8 length of the name, the name."""
        name = self.block.encode("ascii")
        body = struct.pack(">QIB", self.start, self.size, len(name)) + name
        return _HEAD.pack(_REQ_PAGES_ID, len(body)) + body


class ReturnGate:
    """Follows QEMU's return path (as a relay's gate) and knows when a message may be put between two others:
    never after the destination's own first request, because one without a name means the last block named.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._own = False

    @property
    def open(self) -> bool:
        """Nothing of a message is on its way, and the destination has not asked for a page."""
        return not self._own and not self._buffer

    async def outgoing(self, data: bytes) -> None:
        """See Gate."""

    def incoming(self, data: bytes) -> None:
        """See Gate."""
        if self._own:
            return
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._buffer)
            if kind in (_REQ_PAGES, _REQ_PAGES_ID, _RECV_BITMAP):
                self._own = True
                self._buffer.clear()
                return
            if len(self._buffer) < _HEAD.size + size:
                return
            del self._buffer[: _HEAD.size + size]


def ring_pages(block: str, memory: int, rings: Iterable[dict[str, Any]]) -> list[PageRange]:
    """The pages of these rings (answers to x-query-virtio-queue-status) within `memory` bytes, in order and
    without overlap."""
    pages: set[int] = set()
    for ring in rings:
        number = int(ring["vring-num"])
        # Sizes: virtio 1.2, 2.7: 16 bytes a descriptor, 2 and 8 bytes an entry of the two rings.
        parts = (("vring-desc", 16 * number), ("vring-avail", 6 + 2 * number), ("vring-used", 6 + 8 * number))
        for name, size in parts:
            start = int(ring[name])
            if start and start + size <= min(memory, LOW_MEMORY):
                pages.update(range(start // PAGE, (start + size - 1) // PAGE + 1))
    found: list[PageRange] = []
    for page in sorted(pages):
        last = found[-1] if found else None
        if last is not None and last.start + last.size == page * PAGE:
            found[-1] = PageRange(block, last.start, last.size + PAGE)
        else:
            found.append(PageRange(block, page * PAGE, PAGE))
    return found


async def rings_of(driver: Hypervisor, guest: str, memory: int) -> list[PageRange]:
    """The ring pages of a running guest with `memory` bytes; none when QEMU does not say."""
    rings: list[dict[str, Any]] = []
    try:
        block = str(await driver.ask_qemu(guest, "qom-get", path="/machine", property="memory-backend"))
        for device in await driver.ask_qemu(guest, "x-query-virtio"):
            rings += await _queues(driver, guest, str(device["path"]))
        return ring_pages(block.rsplit("/", 1)[-1], memory, rings)
    except (DriverError, KeyError, TypeError, ValueError) as error:
        log.info("guest %s: the rings of its devices are not known: %s", guest, error)
        return []


async def _queues(driver: Hypervisor, guest: str, path: str) -> list[dict[str, Any]]:
    queues: list[dict[str, Any]] = []
    for number in range(MOST_QUEUES):
        try:
            answer = await driver.ask_qemu(guest, "x-query-virtio-queue-status", path=path, queue=number)
        except DriverError:
            break
        queues.append(answer)
    return queues


class FirstPages:
    """One migration's. `cap` gives the user's cap in MiB/s, 0: none; without `ask` nothing is asked for."""

    def __init__(
        self,
        request: Request,
        driver: Hypervisor,
        relays: RelaySet,
        cap: Callable[[], int] = lambda: 0,
        ask: bool = True,
    ) -> None:
        self.pages: list[PageRange] = []
        self._resumed = asyncio.Event()
        self._switching = False
        self._request = request
        self._driver = driver
        self._relays = relays
        self._cap = cap
        self._ask = ask
        self._gate = ReturnGate()

    async def gate(self) -> ReturnGate:
        """The gate of the next memory channel. The first time QEMU is asked which pages they are."""
        request = self._request
        if self._ask and request.mode != "precopy" and not self.pages:
            self.pages = await rings_of(self._driver, request.guest, request.memory)
        self._gate = ReturnGate()
        return self._gate

    async def switch(self) -> None:
        """Tell QEMU to go over to post-copy."""
        self._switching = True
        try:
            await self._driver.start_postcopy(self._request.guest)
        except DriverError as error:
            self._switching = False
            log.warning("guest %s: post-copy: %s", self._request.guest, error)
            await self._driver.set_bandwidth(self._request.guest, self._cap())

    def stopped(self) -> None:
        """The guest has stopped. Ask for the pages now, if it was for the switch: after the device state QEMU
        sends first what was asked for."""
        channel = self._channel()
        if channel is not None and self._switching and self.pages and self._gate.open:
            asked = channel.insert(b"".join(one.pack() for one in self.pages))
            log.debug("guest %s: %d ranges asked for: %s", self._request.guest, len(self.pages), asked)

    async def on_status(self, status: str) -> None:
        """QEMU's migration has a new status: it is held back before the switch, and after it until the guest
        runs. With storage libvirt could not be told memory's cap, so it is set here."""
        if status == "setup":
            cap = QUIET_MIB if self._request.mode == "postcopy" else self._cap()
            if cap and (self._request.storage or self._request.mode == "postcopy"):
                await self._limit("max-bandwidth", cap)
        elif status == "postcopy-active":
            try:
                await asyncio.wait_for(self._resumed.wait(), EASE_S)
            except TimeoutError:
                log.info("guest %s does not run %g s after the switch", self._request.guest, EASE_S)
            if (channel := self._channel()) is not None:
                channel.up.floor = FLOOR
            await self._limit("max-postcopy-bandwidth", self._cap())

    def hear(self, message: Message) -> None:
        """A message of the destination: it may say that the guest runs."""
        if isinstance(message, Resumed):
            self._resumed.set()

    async def _limit(self, parameter: str, mib: int) -> None:
        try:
            await self._driver.ask_qemu(
                self._request.guest, "migrate-set-parameters", **{parameter: mib << 20}
            )
        except DriverError as error:
            log.warning("guest %s: %s", self._request.guest, error.message)

    def _channel(self) -> Relay | None:
        return next((one for kind, one in reversed(self._relays.relays) if kind == "ram"), None)
