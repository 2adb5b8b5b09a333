"""What a lab's supervisor does for its clients over lab.sock; the protocol is the nodes' control protocol.

Operations: status, plan, down, capture_start, capture_stop, link_set, link_show, link_state, run, run_wait,
run_kill, names_set, guest_exec, agent, migrate, migrate_cancel, migrate_control,
migrate_plan.
Streaming ones send events that carry the request's id before their answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from xiatb.errors import XiatbError
from xiatb.lab.builder import write_names
from xiatb.lab.capture import Capture
from xiatb.lab.context import Child, Context
from xiatb.lab.extensions import GuestManager, Migrator, NodeService
from xiatb.lab.linkops import LinkOperations
from xiatb.lab.state import UP
from xiatb.lab.status import lab_status
from xiatb.node.control import Operation, Session
from xiatb.node.control_protocol import ControlError, Json, field, number
from xiatb.node.names import parse_hosts

log = logging.getLogger("xiatb.lab")
REVIVALS = 5
REVIVAL_S = 60.0
"""A daemon that ends more often than REVIVALS times within REVIVAL_S seconds is not started again."""

T = TypeVar("T")


class LabOperations:
    """All operations of one lab; lives in the supervisor's event loop, work that blocks goes to threads."""

    def __init__(
        self,
        context: Context,
        guests: GuestManager | None,
        services: Sequence[NodeService],
        take_down: Callable[[Callable[[str], None]], None],
        stop: asyncio.Event,
    ) -> None:
        self._context = context
        self._guests = guests
        self._services = services
        self._take_down = take_down
        self._stop = stop
        self._links = LinkOperations(context)
        self._captures: dict[str, Capture] = {}
        self._captures_made = 0
        self._revived: dict[str, list[float]] = {}
        self._revivals: set[asyncio.Future[None]] = set()

    def table(self) -> dict[str, Operation]:
        """The operations by name."""
        return {
            "status": self.op_status,
            "plan": lambda session, request: self._context.plan.to_json(),
            "down": self.op_down,
            "capture_start": self.op_capture_start,
            "capture_stop": self.op_capture_stop,
            "link_set": self.op_link_set,
            "link_show": self.op_link_show,
            "link_state": self.op_link_state,
            "run": self.op_run,
            "run_wait": self.op_run_wait,
            "run_kill": self.op_run_kill,
            "names_set": self.op_names_set,
            "guest_exec": self.op_guest_exec,
            "agent": self.op_agent,
            "migrate": self.op_migrate,
            "migrate_cancel": self.op_migrate_cancel,
            "migrate_control": self.op_migrate_control,
            "migrate_plan": self.op_migrate_plan,
        }

    def session_gone(self, session: Session) -> None:
        """A client went away; nothing here belongs to a client alone."""

    async def op_status(self, session: Session, request: Json) -> Json:
        """Everything at a glance, see `status.lab_status`."""
        return await self._thread(lambda: lab_status(self._context.paths, self._extension_status))

    async def op_down(self, session: Session, request: Json) -> Json:
        """Take the lab down; progress events, then an empty answer, then the supervisor ends."""
        loop, emit = asyncio.get_running_loop(), self._emitter(session, request)

        def say(message: str) -> None:
            emit({"event": "progress", "message": message})

        await self.close()
        try:
            await asyncio.shield(self._thread(lambda: self._take_down(say)))
        finally:
            loop.call_later(0.05, self._stop.set)
        return {}

    async def op_capture_start(self, session: Session, request: Json) -> Json:
        """{node, port? or ports?, path, snaplen?, duration?, count?} -> {capture}; returns when dumpcap
        catches."""
        port = field(request, "port", str, None)
        ports = [port] if port else [str(one) for one in field(request, "ports", list, [])]
        capture = Capture(
            self._context.plan,
            field(request, "node", str),
            ports,
            Path(field(request, "path" if "path" in request else "file", str)),
            snaplen=int(number(request, "snaplen", 0, 0, 262144)),
            duration=number(request, "duration", 0, 0, 86400),
            count=int(number(request, "count", 0, 0, 1e9)),
        )
        await self._thread(lambda: capture.start(self._context))
        self._captures_made += 1
        name = f"c{self._captures_made}"
        self._captures[name] = capture
        return {"capture": name, "id": name}

    async def op_capture_stop(self, session: Session, request: Json) -> Json:
        """{capture: id} -> {file, packets, dropped}; the file is complete then."""
        capture = self._captures.pop(field(request, "capture", str), None)
        if capture is None:
            raise ControlError("ENOENT", "capture: no such capture")
        return await self._thread(capture.stop)

    async def op_link_set(self, session: Session, request: Json) -> Json:
        """{a, b, set: {parameter: text}, from?, replace?} -> the link, see `linkops.shown_link`.

        `from`: one direction only; `replace`: parameters that are not named go back to nothing."""
        a, b, values = field(request, "a", str), field(request, "b", str), field(request, "set", dict)
        source, clear = field(request, "from", str, None), field(request, "replace", bool, False)
        return await self._thread(lambda: self._links.set(a, b, values, source=source, clear=clear))

    async def op_link_show(self, session: Session, request: Json) -> Json:
        """{a?, b?} -> {links: [...]}: all, those of `a`, or the one between `a` and `b`."""
        a, b = field(request, "a", str, None), field(request, "b", str, None)
        return {"links": await self._thread(lambda: self._links.show_all(a, b))}

    async def op_link_state(self, session: Session, request: Json) -> Json:
        """{a, b, up} -> the link: pull its cable or plug it in."""
        a, b, up = field(request, "a", str), field(request, "b", str), field(request, "up", bool)
        return await self._thread(lambda: self._links.switch(a, b, up=up))

    async def op_run(self, session: Session, request: Json) -> Json:
        """{node, argv, what, log, env?} -> {pid}: a process of the lab in a node; ends with the lab."""
        node, what = field(request, "node", str), field(request, "what", str)
        argv = [str(word) for word in field(request, "argv", list)]
        environment = {str(key): str(value) for key, value in field(request, "env", dict, {}).items()}
        old = self._context.children.get(what)
        if not argv or (old is not None and old.poll() is None):
            raise ControlError(
                "EEXIST" if argv else "EINVAL", f"what: {what!r} runs already" if argv else "argv: empty"
            )
        log_file = Path(field(request, "log", str))
        child = await self._thread(
            lambda: self._context.spawn(node, argv, what=what, log=log_file, env=environment)
        )
        self._context.state.processes.pop(what, None)  # that it ends is no fault of the lab
        return {"pid": child.pid}

    async def op_run_wait(self, session: Session, request: Json) -> Json:
        """{what, timeout} -> {returncode}. ETIMEDOUT while it still runs."""
        child = self._child(request)
        timeout = number(request, "timeout", 60, 0, 86400)
        try:
            return {"returncode": await self._thread(lambda: child.wait(timeout))}
        except subprocess.TimeoutExpired as error:
            raise ControlError("ETIMEDOUT", f"{request['what']} still runs after {timeout:g} s") from error

    def op_run_kill(self, session: Session, request: Json) -> Json:
        """{what, signal?} sends a signal (default SIGTERM) to a process started with `run`."""
        self._child(request).send_signal(int(number(request, "signal", signal.SIGTERM, 1, 64)))
        return {}

    async def op_guest_exec(self, session: Session, request: Json) -> Json:
        """{guest, argv, limit?}: events {"event":"output","stream","data"(latin-1)}, answer {returncode}."""
        guest, manager = self._guest(request)
        argv = [str(word) for word in field(request, "argv", list)]
        timeout = number(request, "limit", 3600, 0, 86400)
        emit = self._emitter(session, request)

        def output(stream: str, data: bytes) -> None:
            emit({"event": "output", "stream": stream, "data": data.decode("latin-1")})

        code = await self._thread(lambda: manager.exec(self._context, guest, argv, output, timeout))
        return {"returncode": code}

    async def op_agent(self, session: Session, request: Json) -> Json:
        """{guest, request: {op, ...}, limit?} -> the answer: one request to the guest's agent."""
        guest, manager = self._guest(request)
        wanted = field(request, "request", dict)
        timeout = number(request, "limit", 600, 0, 3600)
        return await self._thread(lambda: manager.agent(self._context, guest, wanted, timeout))

    async def op_migrate(self, session: Session, request: Json) -> Json:
        """{guest, to, storage?, and the migrator's options}: the migration's events as they come, then its
        result."""
        guest, to = field(request, "guest", str), field(request, "to", str)
        storage, migrator = field(request, "storage", bool, False), self._migrator()
        emit = self._emitter(session, request)
        options = _options(request)
        return await self._thread(lambda: migrator.migrate(self._context, guest, to, storage, emit, options))

    async def op_migrate_control(self, session: Session, request: Json) -> Json:
        """{guest, action: show|set|switch|resume, changes: {bandwidth, downtime}}: act on a migration
        under way."""
        guest, action = field(request, "guest", str), field(request, "action", str)
        changes, migrator = field(request, "changes", dict, {}), self._migrator()
        return await self._thread(lambda: migrator.control(self._context, guest, action, changes))

    async def op_migrate_plan(self, session: Session, request: Json) -> Json:
        """As migrate: what it would do and take; nothing is started."""
        guest, to = field(request, "guest", str), field(request, "to", str)
        storage, migrator = field(request, "storage", bool, False), self._migrator()
        options = _options(request)
        return await self._thread(lambda: migrator.plan(self._context, guest, to, storage, options))

    async def op_migrate_cancel(self, session: Session, request: Json) -> Json:
        """{guest}: stop a migration under way."""
        guest, migrator = field(request, "guest", str), self._migrator()
        return await self._thread(lambda: migrator.cancel(self._context, guest))

    def op_names_set(self, session: Session, request: Json) -> Json:
        """{names: {name: dag}}: change the lab's hosts.xia, for example after a guest has moved."""
        names = parse_hosts(self._context.paths.names.read_text())
        names.update({str(key): str(value) for key, value in field(request, "names", dict).items()})
        write_names(self._context.paths.names, names)
        return {}

    async def watch_children(self) -> None:
        """Reap processes of the lab that end by themselves, and say so in the log."""
        loop = asyncio.get_running_loop()
        watched: set[int] = set()

        def watch(what: str, child: Child) -> None:
            try:
                descriptor = os.pidfd_open(child.pid)
            except ProcessLookupError:
                tell(what, child)
                return
            watched.add(descriptor)
            loop.add_reader(descriptor, ended, descriptor, what, child)

        def ended(descriptor: int, what: str, child: Child) -> None:
            loop.remove_reader(descriptor)
            watched.discard(descriptor)
            os.close(descriptor)
            tell(what, child)

        def tell(what: str, child: Child) -> None:
            code = child.poll()
            if code is not None:
                log.warning("%s ended (%s)", what, f"signal {-code}" if code < 0 else f"exit {code}")
                self._again(what)

        self._context.adopted = lambda what, child: loop.call_soon_threadsafe(watch, what, child)
        try:
            for what, child in list(self._context.children.items()):
                watch(what, child)
            await loop.create_future()
        finally:
            self._context.adopted = None
            for descriptor in watched:
                loop.remove_reader(descriptor)
                os.close(descriptor)

    def _again(self, what: str) -> None:
        """Let whoever has started the process start it again, but not for ever."""
        now = asyncio.get_running_loop().time()
        recent = [t for t in self._revived.get(what, []) if now - t < REVIVAL_S]
        if self._context.state.status != UP:
            return
        if len(recent) >= REVIVALS:
            log.error("%s has ended %d times within %g s: left dead", what, len(recent) + 1, REVIVAL_S)
            return
        self._revived[what] = [*recent, now]
        task = asyncio.ensure_future(self._thread(lambda: self._revive(what)))
        self._revivals.add(task)
        task.add_done_callback(self._revivals.discard)

    def _revive(self, what: str) -> None:
        owners: list[GuestManager | NodeService] = list(self._services)
        if self._guests is not None:
            owners.insert(0, self._guests)
        for owner in owners:
            try:
                owner.ended(self._context, what)
            except (XiatbError, OSError) as error:
                log.warning("starting %s again: %s", what, error)

    async def close(self) -> None:
        """Finish captures."""
        for capture in list(self._captures.values()):
            with contextlib.suppress(XiatbError):
                await self._thread(capture.stop)
        self._captures.clear()

    def _emitter(self, session: Session, request: Json) -> Callable[[Json], None]:
        """Sends events of a request from any thread, before its answer."""
        loop, number_ = asyncio.get_running_loop(), request.get("id")

        def emit(event: Json) -> None:
            loop.call_soon_threadsafe(session.send, {**event, "id": number_})

        return emit

    def _guest(self, request: Json) -> tuple[str, GuestManager]:
        guest = field(request, "guest", str)
        if self._guests is None or guest not in {one.name for one in self._context.plan.guests}:
            raise ControlError("ENOENT", f"no guest named {guest!r} in {self._context.plan.lab}")
        return guest, self._guests

    def _migrator(self) -> Migrator:
        for service in self._services:
            if hasattr(service, "migrate"):
                return cast(Migrator, service)
        raise ControlError("ENOSYS", f"{self._context.plan.lab} has no guests to migrate")

    def _child(self, request: Json) -> Child:
        what = field(request, "what", str)
        child = self._context.children.get(what)
        if child is None:
            raise ControlError("ENOENT", f"what: nothing named {what!r} was started")
        return child

    def _extension_status(self) -> dict[str, Any]:
        if self._guests is None or not self._context.plan.guests:
            return {}
        services: dict[str, Any] = {}
        for service in self._services:
            services.update(service.status(self._context))
        return {"guests": self._guests.status(self._context), "daemons": services}

    def _thread(self, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(None, work)


def _options(request: Json) -> Json:
    """The migrator's options in a request."""
    return {k: v for k, v in request.items() if k not in ("id", "op", "guest", "to", "storage")}
