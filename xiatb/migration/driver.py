"""The local libvirtd as the daemon sees it: facts, events, the migration call, clean-up.

libvirt calls block, so each runs in a worker thread; its events come on one thread of libvirt's own event
loop and are handed to asyncio at once with the time they were seen (monotonic nanoseconds).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from xiatb.errors import HostNotAbleError, XiatbError
from xiatb.migration.facts import GuestFacts, facts_of

T = TypeVar("T")
OnEvent = Callable[["GuestEvent"], None]
UNLIMITED_MIB = ((1 << 63) - 1) >> 20
"""libvirt's own value for no cap (QEMU_DOMAIN_MIG_BANDWIDTH_MAX)."""
_QMP = ("STOP", "RESUME", "MIGRATION", "MIGRATION_PASS", "SHUTDOWN")
AGAIN_S = 0.3
MOST_MOVES = 64
"""As many migrations as the daemon's control socket has under way. Each keeps a thread waiting until it ends;
asyncio's own threads, six on a machine of two processors, must stay free for what steers and cancels them."""
log = logging.getLogger("xiatb.migration")
_started = threading.Lock()
_loop_runs = False


class DriverError(XiatbError):
    """libvirt refused or failed an operation; the message is libvirt's."""


@dataclass(frozen=True)
class GuestEvent:
    """Something happened to a guest here. `kind` is a QMP event name or "lifecycle:EVENT:DETAIL" in
    numbers."""

    guest: str
    kind: str
    t: int
    data: dict[str, Any]


@dataclass(frozen=True)
class HostFacts:
    """Versions (libvirt's integers) and machine types of the local hypervisor."""

    qemu: int
    libvirt: int
    machines: tuple[str, ...]


class Driver:
    """One per daemon. Call `open` first; `on_event` is called in the asyncio thread.

    When libvirtd dies it connects again as soon as another one answers.
    """

    def __init__(self, uri: str, on_event: OnEvent) -> None:
        self._uri = uri
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._events: Any = None
        self._calls: Any = None
        self._again: asyncio.Task[None] | None = None
        self._ended = False
        self._moves = ThreadPoolExecutor(MOST_MOVES, "migration")

    async def open(self) -> None:
        """Connect and register for events; raises HostNotAbleError when libvirtd does not answer."""
        await self._thread(self._open)

    async def close(self) -> None:
        """Disconnect."""
        self._ended = True
        if self._again is not None:
            self._again.cancel()
        await self._thread(self._close)

    async def host(self) -> HostFacts:
        """What this hypervisor is."""
        return await self._thread(self._host)

    async def guest(self, name: str) -> GuestFacts | None:
        """Facts of a running guest; None when it is not defined or not running here."""
        return await self._thread(self._guest, name)

    async def state(self, name: str) -> str:
        """ "absent", "off" (defined, not running), "running" or "paused"."""
        return await self._thread(self._state, name)

    async def migrate(self, name: str, desturi: str, parameters: dict[str, Any], flags: int) -> None:
        """Run the migration to its end; raises DriverError with libvirt's reason."""
        work = partial(self._migrate, name, desturi, parameters, flags)
        try:
            await self._loop.run_in_executor(self._moves, work)
        except libvirt.libvirtError as error:
            raise DriverError(str(error)) from None

    async def abort(self, name: str) -> None:
        """Abort the guest's migration job, if there is one."""
        await self._thread(self._abort, name)

    async def job_stats(self, name: str) -> dict[str, Any]:
        """libvirt's statistics of the running job; empty when there is none, or nobody who could tell."""
        return await self._thread(self._job_stats, name)

    async def completed_stats(self, name: str) -> dict[str, Any]:
        """libvirt's statistics of the job that brought the guest here; empty when there was none."""
        return await self._thread(self._completed_stats, name)

    async def set_downtime_limit(self, name: str, milliseconds: int) -> None:
        """Tell QEMU how long the guest may be stopped; nothing happens when no migration runs."""
        await self._thread(self._set_downtime_limit, name, milliseconds)

    async def set_bandwidth(self, name: str, mib: int) -> None:
        """Cap a running migration's memory at `mib` MiB/s, 0: no cap; nothing happens when none runs."""
        await self._thread(self._set_bandwidth, name, mib)

    async def ask_qemu(self, name: str, command: str, **arguments: Any) -> Any:
        """What QEMU's own protocol returns for this command; raises DriverError, also when it refuses."""
        return await self._thread(self._ask_qemu, name, command, arguments)

    async def set_throttle(self, name: str, percent: int) -> None:
        """Let auto-converge (which must be on) throttle the guest's processors by `percent`, 1 to 99."""
        await self._thread(self._set_throttle, name, percent)

    async def in_postcopy(self, name: str) -> bool:
        """Whether the guest's migration has switched to post-copy, at either side."""
        return await self._thread(self._in_postcopy, name)

    async def start_postcopy(self, name: str) -> None:
        """Switch the guest's outgoing migration to post-copy; raises DriverError."""
        await self._thread(self._start_postcopy, name)

    async def resume(self, name: str) -> None:
        """Let a guest that is paused here run; nothing happens when it is not here or runs."""
        await self._thread(self._resume, name)

    async def pause(self, name: str) -> None:
        """Stop a guest that runs here, also in the middle of its migration; nothing happens to others."""
        await self._thread(self._pause, name)

    async def destroy(self, name: str) -> None:
        """End the guest here and forget its definition; nothing happens when it is not here."""
        await self._thread(self._destroy, name)

    async def _thread(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.to_thread(function, *arguments)
        except libvirt.libvirtError as error:
            raise DriverError(str(error)) from None

    def _lost(self, _conn: Any, _reason: int, _opaque: Any) -> None:
        """libvirtd has closed the connection, or has died."""
        with contextlib.suppress(RuntimeError):  # the asyncio loop is closed: the daemon is ending
            self._loop.call_soon_threadsafe(self._reconnect_soon)

    def _reconnect_soon(self) -> None:
        if not self._ended and (self._again is None or self._again.done()):
            self._again = asyncio.ensure_future(self._reconnect())

    async def _reconnect(self) -> None:
        """Until libvirtd answers again; meanwhile every call raises DriverError."""
        log.warning("libvirtd at %s has gone", self._uri)
        while True:
            try:
                await self._thread(self._close)
                await self._thread(self._open)
            except XiatbError:
                await asyncio.sleep(AGAIN_S)
            else:
                log.warning("libvirtd at %s is back", self._uri)
                return

    def _open(self) -> None:
        _start_event_loop()
        try:
            self._events = libvirt.open(self._uri)
            self._calls = libvirt.open(self._uri)
        except libvirt.libvirtError as error:
            raise HostNotAbleError(f"libvirtd at {self._uri} does not answer: {error}") from None
        for name in _QMP:
            libvirt_qemu.qemuMonitorEventRegister(self._events, None, name, self._qmp_event, None, 0)
        self._events.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle_event, None
        )
        self._events.registerCloseCallback(self._lost, None)

    def _close(self) -> None:
        for connection in (self._events, self._calls):
            if connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    connection.close()

    def _qmp_event(
        self, _conn: Any, dom: Any, event: str, seconds: int, micros: int, details: str | None, _opaque: Any
    ) -> None:
        t = _monotonic(seconds, micros)
        try:
            data = json.loads(details) if details else {}
        except ValueError:
            data = {}
        self._deliver(GuestEvent(dom.name(), event, t, data if isinstance(data, dict) else {}))

    def _lifecycle_event(self, _conn: Any, dom: Any, event: int, detail: int, _opaque: Any) -> None:
        self._deliver(GuestEvent(dom.name(), f"lifecycle:{event}:{detail}", time.monotonic_ns(), {}))

    def _deliver(self, event: GuestEvent) -> None:
        with contextlib.suppress(RuntimeError):  # the asyncio loop is closed: the daemon is ending
            self._loop.call_soon_threadsafe(self._on_event, event)

    def _host(self) -> HostFacts:
        import xml.etree.ElementTree as ET

        root = ET.fromstring(self._calls.getCapabilities())  # noqa: S314 - from the local libvirtd
        machines = {
            e.text
            for arch in root.iterfind("guest/arch")
            if arch.get("name") == "x86_64"
            for e in arch.iterfind("machine")
            if e.text
        }
        return HostFacts(self._calls.getVersion(), self._calls.getLibVersion(), tuple(sorted(machines)))

    def _lookup(self, name: str) -> Any:
        try:
            return self._calls.lookupByName(name)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _guest(self, name: str) -> GuestFacts | None:
        dom = self._lookup(name)
        if dom is None or not dom.isActive():
            return None
        return facts_of(dom.XMLDesc(0))

    def _state(self, name: str) -> str:
        dom = self._lookup(name)
        if dom is None:
            return "absent"
        state = dom.state()[0]
        if state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
            return "running"
        return "paused" if dom.isActive() else "off"

    def _migrate(self, name: str, desturi: str, parameters: dict[str, Any], flags: int) -> None:
        dom = self._lookup(name)
        if dom is None:
            raise DriverError(f"guest {name} is not here")
        connection = libvirt.open(self._uri)
        try:
            connection.lookupByName(name).migrateToURI3(desturi, parameters, flags)
        finally:
            connection.close()

    def _abort(self, name: str) -> None:
        dom = self._lookup(name)
        if dom is not None:
            with contextlib.suppress(libvirt.libvirtError):  # no job: it has just ended
                dom.abortJob()
                # QEMU 7.2 (migration_maybe_pause): a cancellation between its last look for one and its pause
                # before the switchover leaves it waiting for this, with the guest stopped for good.
                _qmp(dom, "migrate-continue", state="cancelling")

    def _job_stats(self, name: str) -> dict[str, Any]:
        try:
            dom = self._lookup(name)
            stats: dict[str, Any] = dom.jobStats() if dom is not None else {}
        except libvirt.libvirtError:
            return {}
        return stats

    def _completed_stats(self, name: str) -> dict[str, Any]:
        dom = self._lookup(name)
        if dom is None:
            return {}
        try:
            stats: dict[str, Any] = dom.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        except libvirt.libvirtError:
            return {}
        return stats

    def _set_downtime_limit(self, name: str, milliseconds: int) -> None:
        dom = self._lookup(name)
        if dom is not None:
            with contextlib.suppress(libvirt.libvirtError):  # the migration has just ended
                dom.migrateSetMaxDowntime(milliseconds)

    def _set_bandwidth(self, name: str, mib: int) -> None:
        """Memory alone; disks are held back by diskcap.py. Post-copy has a cap of its own."""
        dom = self._lookup(name)
        if dom is None:
            return
        postcopy = libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY
        with contextlib.suppress(libvirt.libvirtError):  # the migration has just ended
            dom.migrateSetMaxSpeed(mib or UNLIMITED_MIB)
            dom.migrateSetMaxSpeed(mib, postcopy)

    def _set_throttle(self, name: str, percent: int) -> None:
        """QEMU 7.2 (migration/ram.c, mig_throttle_guest_down) begins with `initial` and steps by `increment`
        up to the maximum at the end of every pass that dirtied more than the threshold: with all three at the
        wanted value the next such pass sets it."""
        wanted = {"cpu-throttle-initial": percent, "cpu-throttle-increment": 99, "max-cpu-throttle": percent,
                  "throttle-trigger-threshold": 1}  # fmt: skip
        self._ask_qemu(name, "migrate-set-parameters", wanted)

    def _ask_qemu(self, name: str, command: str, arguments: dict[str, Any]) -> Any:
        dom = self._lookup(name)
        answer = _qmp(dom, command, **arguments) if dom is not None else {}
        if "error" in answer:
            raise DriverError(f"{command}: {answer['error'].get('desc')}")
        return answer.get("return")

    def _in_postcopy(self, name: str) -> bool:
        dom = self._lookup(name)
        if dom is None:
            return False
        return tuple(dom.state()[:2]) in (
            (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
            (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
            (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
            (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
        )

    def _start_postcopy(self, name: str) -> None:
        dom = self._lookup(name)
        if dom is not None:
            dom.migrateStartPostCopy(0)

    def _resume(self, name: str) -> None:
        dom = self._lookup(name)
        if dom is not None and dom.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
            dom.resume()

    def _pause(self, name: str) -> None:
        dom = self._lookup(name)
        if dom is not None and dom.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
            dom.suspend()

    def _destroy(self, name: str) -> None:
        dom = self._lookup(name)
        if dom is None:
            return
        with contextlib.suppress(libvirt.libvirtError):  # it may end by itself meanwhile
            dom.destroy()
        with contextlib.suppress(libvirt.libvirtError):  # it may be transient
            dom.undefine()


def _qmp(dom: Any, command: str, **arguments: Any) -> dict[str, Any]:
    """QEMU's answer to a command of its own protocol; raises libvirtError."""
    asked = {"execute": command, **({"arguments": arguments} if arguments else {})}
    answer: dict[str, Any] = json.loads(libvirt_qemu.qemuMonitorCommand(dom, json.dumps(asked), 0))
    return answer


def _monotonic(seconds: int, micros: int) -> int:
    """QEMU's wall-clock stamp of an event as monotonic nanoseconds; now, if the stamp is not of the last
    seconds."""
    now = time.monotonic_ns()
    age = time.time_ns() - (seconds * 1_000_000_000 + micros * 1000)
    return now - age if 0 <= age < 5_000_000_000 else now


def _start_event_loop() -> None:
    """libvirt's own event loop in a thread of its own, once per process."""
    global _loop_runs
    with _started:
        if _loop_runs:
            return
        libvirt.virEventRegisterDefaultImpl()
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _loop_runs = True


def _run_event_loop() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
