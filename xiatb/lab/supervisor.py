"""The supervisor: the process that holds a lab's Mininet object for as long as the lab is up.

It makes the lab (reporting on standard output, JSON lines, to `xiatb up`), then answers on lab.sock until
it is told to take the lab down. Interrupted or failed while making it, it rolls back what the journal says.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import fcntl
import json
import logging
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType
from typing import Any

from xiatb.errors import InterruptedByUserError, LabStateError, XiatbError
from xiatb.lab import process
from xiatb.lab.builder import Builder
from xiatb.lab.context import Context
from xiatb.lab.convergence import asker, wait_for
from xiatb.lab.extensions import GuestManager, NodeService
from xiatb.lab.journal import Journal
from xiatb.lab.mininet_net import LabNet
from xiatb.lab.operations import LabOperations
from xiatb.lab.paths import NETNS_ROOT, LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.runner import HostRunner
from xiatb.lab.state import STOPPING, UP, LabState
from xiatb.lab.teardown import MADE_NETNS_ROOT, remove_root, teardown
from xiatb.node.control import ControlServer

CONVERGE = 60.0
GUESTS_ATTACHED = 120.0
MOST_WAITING = 256
"""Threads for operations of clients. Migrations and commands in guests keep one until they end: six of them,
asyncio's own number on a machine of two processors, would keep out status, cancel and down."""

log = logging.getLogger("xiatb.lab")


class Supervisor:
    """One lab, from its first journal line to its last."""

    def __init__(self, plan: Plan, guests: GuestManager | None, services: Sequence[NodeService]) -> None:
        self.plan = plan
        self.guests = guests
        self.services = list(services)
        self.paths = LabPaths(plan.lab)
        self.net: LabNet | None = None
        self.context: Context | None = None
        self._interrupted = threading.Event()

    def run(self) -> int:
        """Make the lab, serve it, take it down; exit code. Reports go to standard output until it is up."""
        lock = claim(self.paths)
        signal.signal(signal.SIGTERM, self._interrupt)
        signal.signal(signal.SIGINT, self._interrupt)
        redirect_errors(self.paths.supervisor_log)
        try:
            self._make()
        except BaseException as error:  # noqa: BLE001  whatever it was: roll back, then say so
            return self._roll_back(error)
        try:
            asyncio.run(self._serve())
        finally:
            self._take_down(lambda message: log.info("%s", message))
            os.close(lock)
        return 0

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """While the lab is being made: stop at once. (While it is served asyncio handles signals.)"""
        if not self._interrupted.is_set():
            self._interrupted.set()
            raise InterruptedByUserError("interrupted; what was made has been removed")

    def _make(self) -> None:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        journal = Journal(self.paths.journal)
        lab_id = os.environ[process.MARK]
        journal.begin(lab_id)
        journal.path(self.paths.root, what="state directory")
        me = process.identify(os.getpid())
        assert me is not None
        journal.process(me.pid, me.start, what="supervisor")
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        state = LabState(self.plan.lab, lab_id, process.boot_id(), me, since, self.plan.topology)
        self.context = Context(self.plan, self.paths, journal, state, HostRunner(), _say)
        self.context.save()
        self.net = LabNet()
        builder = Builder(self.context, self.net)
        steps: list[tuple[str, Callable[[], None]]] = [
            ("files and keys", builder.files),
            ("nodes", builder.nodes),
            ("links", builder.links),
            ("interfaces", builder.ports),
            ("private directories", builder.privates),
            ("guest files", self._prepare_guests),
            ("node processes", builder.processes),
            ("routes", self._converge),
            ("hypervisors", self._start_hypervisors),
            ("guests", self._start_guests),
        ]
        for number, (title, step) in enumerate(steps):
            report({"event": "step", "title": title, "number": number, "of": len(steps)})
            log.info("step %d of %d: %s", number + 1, len(steps), title)
            step()
        state.status = UP
        self.context.save()

    def _prepare_guests(self) -> None:
        assert self.context is not None
        if self.guests is not None and self.plan.guests:
            self.guests.prepare(self.context)

    def _converge(self) -> None:
        wait_for(
            self.plan,
            asker(self.paths),
            "converged",
            timeout=CONVERGE + len(self.plan.nodes),
            pause=self._pause,
        )

    def _pause(self, seconds: float) -> None:
        self._interrupted.wait(seconds)

    def _start_hypervisors(self) -> None:
        context, guests = self.context, self.guests
        assert context is not None
        names = [node.name for node in self.plan.kind("hypervisor")]
        if not names or guests is None or not self.plan.guests:
            return

        def start(name: str) -> None:
            guests.start_hypervisor(context, name)
            for service in self.services:
                service.start_node(context, name)

        in_parallel(start, names)

    def _start_guests(self) -> None:
        context, guests = self.context, self.guests
        assert context is not None
        if guests is None or not self.plan.guests:
            return
        in_parallel(
            lambda name: guests.start_guest(context, name), [guest.name for guest in self.plan.guests]
        )
        wait_for(self.plan, asker(self.paths), "guests", timeout=GUESTS_ATTACHED, pause=self._pause)

    async def _serve(self) -> None:
        assert self.context is not None
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(MOST_WAITING, "operation"))
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        operations = LabOperations(self.context, self.guests, self.services, self._take_down, stop)
        server = ControlServer(self.paths.socket, operations.table(), operations.session_gone)
        await server.start()
        watcher = asyncio.ensure_future(operations.watch_children())
        log.info("serving on %s", self.paths.socket)
        report({"event": "ready"})
        leave_terminal()
        report({"event": "ready"})
        leave_terminal()
        await stop.wait()
        watcher.cancel()
        await operations.close()
        server.close()

    def _take_down(self, progress: Callable[[str], None]) -> None:
        """Guests and daemons in order first, then everything by the journal. Does nothing the second time."""
        context, self.context = self.context, None
        if context is None:
            return
        context.state.status = STOPPING
        with contextlib.suppress(OSError):
            context.save()
        stops = [service.stop for service in self.services]
        if self.guests is not None and self.plan.guests:
            stops.append(self.guests.stop)
        for stop in stops if self.plan.guests else []:
            try:
                stop(context)
            except (XiatbError, OSError) as error:
                log.warning("stopping: %s", error)
        for child in context.children.values():
            child.poll()
        teardown(self.paths, progress)
        if self.net is not None:
            self.net.close()

    def _roll_back(self, error: BaseException) -> int:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        log.error("not up", exc_info=error)
        report({"event": "rollback"})
        known = error if isinstance(error, XiatbError) else XiatbError(f"internal error: {error!r}")
        message, hint, code = known.message, known.hint, known.exit_code
        trace = "" if known is error else "".join(traceback.format_exception(error))
        try:
            self._take_down(_mutter)
            if self.paths.journal.exists():
                teardown(self.paths, _mutter)
            remove_root(self.paths)
        except XiatbError as trouble:
            message += f" (and rolling back: {trouble})"
            hint = hint or f"xiatb down {self.plan.lab}"
        report({"event": "failed", "message": message, "hint": hint, "exit_code": code, "trace": trace})
        os._exit(code)  # threads that wait for a process just killed must not keep us


def claim(paths: LabPaths) -> int:
    """Make the state directory and take its lock; the lock's descriptor. Raises LabStateError when the lab
    is up or something is left of it."""
    run_root = paths.run_root
    run_root.mkdir(mode=0o755, exist_ok=True)
    if not NETNS_ROOT.exists() and not any(run_root.iterdir()):
        (run_root / MADE_NETNS_ROOT).touch()
    try:
        paths.root.mkdir(mode=0o700)
    except FileExistsError as error:
        if any(paths.root.iterdir()):
            raise already_up(paths) from error
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise already_up(paths) from error
    return descriptor


def already_up(paths: LabPaths) -> LabStateError:
    """The error for a lab whose state directory is there."""
    if supervised(paths):
        return LabStateError(
            f"lab {paths.lab} is up already", hint=f"xiatb status {paths.lab}; xiatb down {paths.lab}"
        )
    return LabStateError(
        f"lab {paths.lab} was not taken down (its supervisor died)",
        hint=f"remove what is left: xiatb down {paths.lab}",
    )


def supervised(paths: LabPaths) -> bool:
    """Whether some process holds the lab's lock."""
    try:
        descriptor = os.open(paths.lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def in_parallel(start: Callable[[str], None], names: Sequence[str]) -> None:
    """Run `start` for each name in a thread of its own; the first error is raised at once."""
    pool = ThreadPoolExecutor(max_workers=max(1, len(names)))
    waiting: list[Future[None]] = [pool.submit(start, name) for name in names]
    try:
        for done in as_completed(waiting):
            done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def report(event: dict[str, Any]) -> bool:
    """One JSON line to `xiatb up`; False when that is gone."""
    try:
        data = json.dumps(event).encode() + b"\n"
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        return False
    return True


def _say(message: str) -> None:
    """Progress while the lab is being made; without anyone to tell it to, the lab is not wanted any more."""
    if not report({"event": "progress", "message": message}):
        raise InterruptedByUserError("xiatb up went away; what was made has been removed")


def _mutter(message: str) -> None:
    """Progress while rolling back, to whoever may still be there."""
    report({"event": "progress", "message": message})


def redirect_errors(path: Path) -> None:
    """Standard error and logging go to the supervisor's log."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, force=True
    )


def leave_terminal() -> None:
    """The lab is up: let go of the pipe to `xiatb up`."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
