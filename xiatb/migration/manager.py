"""The lab's side of migration: one daemon per hypervisor host, and the supervisor's op `migrate`.

Implements `lab.extensions.NodeService`. `migrate` finds the host that the guest runs on now, lets its
daemon do the work and passes its events on; afterwards the lab's names file tells the guest's new location.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.guests.libvirtd import qemu_pids
from xiatb.lab.client import ControlClient, SocketGoneError
from xiatb.lab.extensions import LabContext
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import NodePlan, Plan
from xiatb.lab.process import ProcessId, identify, stop_all
from xiatb.lab.readiness import ready_pipe
from xiatb.migration import policyfile
from xiatb.migration.advice import TAKEN_DOWN, advice
from xiatb.migration.baseline import TRANSPORTS, TcpTransport
from xiatb.migration.config import DaemonConfig, Peer
from xiatb.node.control_protocol import ControlError
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.xid import XID

READY_S = 30.0
SILENCE_S = 120.0
"""The daemon sends progress ten times a second; longer silence than this means that it hangs."""
WHAT = "migrated "
"""What the lab calls a daemon's process, with the node's name behind it."""
SETTLE_STEP_S = 0.2
SETTLE_S = 60.0
"""How long a user waits for a daemon that was started again to find out what became of the guest."""
CANCEL_S = 5.0
"""How long the end of a lab waits for the migrations in it to be cancelled."""
ANSWER_S = 2.0
"""How long a daemon may take to answer when its lab ends."""
_ITS_OWN_WAY = ("postcopy", "asking")
"""States of a source in which it is too late to cancel, and that may last: the end of a lab does not wait."""
USAGE = "EUSAGE"
"""Error code of requests that make no sense; the command line then exits with 2."""
ACTIONS = ("show", "set", "switch", "resume")
"""What `control` does to a migration under way."""
Emit = Callable[[dict[str, Any]], None]
log = logging.getLogger("xiatb.migration")


def socket_path(paths: LabPaths, node: str) -> Path:
    """The control socket of a hypervisor's migration daemon."""
    return paths.node(node) / "migrated.sock"


def log_path(paths: LabPaths, node: str) -> Path:
    """The daemon's log."""
    return paths.node(node) / "migrated.log"


def daemon_config(plan: Plan, paths: LabPaths, node: NodePlan) -> DaemonConfig:
    """The configuration of the daemon on hypervisor `node`; its peers are all other hypervisors."""
    return DaemonConfig(
        lab=plan.lab,
        host=node.name,
        key=paths.key(f"migrated-{node.name}"),
        state_dir=paths.node(node.name),
        socket=socket_path(paths, node.name),
        node_control=paths.control(node.name),
        guests=paths.root / "guests",
        shared=paths.shared_disks,
        policy=policyfile.of_plan(plan),
        peers={
            other.name: Peer(other.name, XID.parse(other.migration_sid), service_dag(other))
            for other in plan.kind("hypervisor")
            if other.name != node.name and other.migration_sid is not None
        },
    )


def service_dag(node: NodePlan) -> str:
    """Where the node's daemon is to be dialled."""
    if node.ad is None or node.migration_sid is None:
        raise XiatbError(f"{node.name} is no hypervisor with a migration daemon")
    return str(served(node.at(XID.parse(node.hid)), XID.parse(node.migration_sid)))


class MigrationManager:
    """Starts, stops and uses the migration daemons of one lab."""

    def __init__(self) -> None:
        self._daemons: dict[str, ProcessId] = {}
        self._lock = threading.Lock()
        self._reviving = threading.Lock()
        self._tcp = TcpTransport()
        self._ending = False

    def start_node(self, context: LabContext, node: str) -> None:
        """See lab.extensions.NodeService."""
        config = daemon_config(context.plan, context.paths, context.plan.node(node))
        path = context.paths.node(node) / "migrated.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config.to_json(), indent=1) + "\n")
        log = log_path(context.paths, node)
        with ready_pipe() as pipe:
            child = context.spawn(
                node, [sys.executable, "-m", "xiatb.migration.daemon", str(path)], what=f"{WHAT}{node}",
                log=log, env=pipe.environment(), pass_fds=[pipe.writer],
            )  # fmt: skip
            pipe.close_writer()
            told = pipe.wait(child, f"migration daemon of {node}", log, time.monotonic() + READY_S)
        if not told.get("ready"):
            raise XiatbError(f"migration daemon of {node}: {told.get('message')}", hint=f"see {log}")
        with self._lock:
            self._daemons[node] = context.identify(child.pid)
        context.progress(f"migration daemon {node} is ready")

    def stop(self, context: LabContext) -> None:
        """See lab.extensions.NodeService."""
        self._ending = True
        moving = self._cancel_all(context)
        with self._lock:
            daemons, self._daemons = list(self._daemons.values()), {}
        if moving:
            log.info("ending the migrations of %s as they stand", ", ".join(sorted(moving)))
            self._cut_short(context, moving, daemons)
        stop_all(daemons, grace=20.0)

    def _cancel_all(self, context: LabContext) -> set[str]:
        """Cancel what is under way, and wait for it, while both ends are still there to end it in order: else
        libvirt, in the midst of a migration that nobody answers, lets a guest's end wait for 30 s. Gives the
        guests whose migration does not end so."""
        deadline = time.monotonic() + CANCEL_S
        while True:
            over_tcp = {one.name: self._tcp.cancel(one.name) for one in context.plan.guests}
            moving = {guest for guest, told in over_tcp.items() if told is not None}
            waits = any(over_tcp.values())
            for node in context.plan.kind("hypervisor"):
                with contextlib.suppress(XiatbError):
                    status = self._ask(context, node.name, "status", timeout=ANSWER_S)
                    for one in status["outgoing"]:
                        moving.add(one["guest"])
                        waits = waits or one["state"] not in _ITS_OWN_WAY
                        self._ask(context, node.name, "cancel", timeout=ANSWER_S, guest=one["guest"])
            if not waits or time.monotonic() > deadline:
                return moving
            time.sleep(SETTLE_STEP_S)

    def _cut_short(self, context: LabContext, guests: set[str], daemons: list[ProcessId]) -> None:
        """End migrations that cannot be cancelled, at both ends at once, the guests with them. A post-copy
        would end with its last page, or wait for its path as long as that is broken, and libvirt lets nobody
        end the guest meanwhile. The daemons go first: they would ask each other what became of it."""
        for daemon in daemons:
            daemon.signal(signal.SIGKILL)
        uuids = [guest.uuid for guest in context.plan.guests if guest.name in guests]
        for node in context.plan.kind("hypervisor"):
            with contextlib.suppress(XiatbError, OSError, KeyError):
                root = Path(f"/proc/{context.node_pid(node.name)}/root")
                for pid in [pid for uuid in uuids for pid in qemu_pids(root, uuid)]:
                    if (process := identify(pid)) is not None:
                        process.signal(signal.SIGKILL)

    def status(self, context: LabContext) -> dict[str, dict[str, Any]]:
        """See lab.extensions.NodeService."""
        shown: dict[str, dict[str, Any]] = {}
        for node in context.plan.kind("hypervisor"):
            try:
                shown[node.name] = {"migrated": "running", **self._ask(context, node.name, "status")}
            except XiatbError:
                shown[node.name] = {"migrated": "dead"}
        return shown

    def where(self, context: LabContext, guest: str) -> tuple[str | None, dict[str, str]]:
        """The hypervisor on which the guest runs now (None: on none), and its state on each that answers."""
        states: dict[str, str] = {}
        for node in context.plan.kind("hypervisor"):
            with contextlib.suppress(SocketGoneError):
                answer = self._ask(context, node.name, "states", guests=[guest])
                states[node.name] = str(answer["states"].get(guest, "absent"))
        running = [node for node, state in states.items() if state == "running"]
        return (running[0] if running else None), states

    def migrate(
        self,
        context: LabContext,
        guest: str,
        to: str,
        storage: bool,
        emit: Emit,
        options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Move a guest; `emit` gets the daemon's events. Gives the daemon's result dict.

        `options` are the fields of options.Options that are not to have their default, and `transport`: "xia"
        or "tcp" (tcptransport).

        Raises ControlError with code EUSAGE for an unknown guest or host or when the guest is there already,
        else with the migration's reason as code: the guest then runs on where it was.
        """
        wanted = dict(options or {})
        transport = wanted.pop("transport", "xia")
        if transport not in TRANSPORTS:
            raise ControlError(USAGE, f"no transport {transport!r}; one of {', '.join(TRANSPORTS)}")
        self._check(context.plan, guest, to)
        self._revive(context)
        source = self._leaves(context, guest, to)
        try:
            if transport == "tcp":
                result = self._tcp.migrate(context, guest, source, to, storage, wanted, emit)
            else:
                wanted |= {"guest": guest, "to": to, "storage": storage}
                result = {"transport": "xia", **self._run(context, source, wanted, emit)}
        except (SocketGoneError, ControlError) as error:
            if self._ending:
                raise ControlError("cancelled", TAKEN_DOWN, hint=advice("cancelled", guest, source, to,
                                                                        down=context.plan.lab)) from None
            if not isinstance(error, SocketGoneError):
                raise
            result = self._after_death(context, guest, source, to, emit)
        self._moved(context, guest, to)
        self._tcp.follow(context, guest, source, to)
        return result

    def plan(
        self, context: LabContext, guest: str, to: str, storage: bool, options: dict[str, Any]
    ) -> dict[str, Any]:
        """What `migrate` would be, without starting anything (planning.py). Raises as `migrate` does."""
        self._check(context.plan, guest, to)
        source = self._leaves(context, guest, to)
        request = {**options, "guest": guest, "to": to, "storage": storage}
        with ControlClient(socket_path(context.paths, source)) as client:
            return {"from": source, **client.request("plan", timeout=SILENCE_S, params=request)}

    def _leaves(self, context: LabContext, guest: str, to: str) -> str:
        """The host that the guest would leave for `to`; ControlError when there is none."""
        source, states = self.where(context, guest)
        if source is None:
            raise _not_running(guest, to, states)
        if source == to:
            raise ControlError(USAGE, f"guest {guest} is already on {to}")
        return source

    def _after_death(
        self, context: LabContext, guest: str, source: str, to: str, emit: Emit
    ) -> dict[str, Any]:
        """The source's daemon has died under a migration: what became of the guest, once it is settled."""
        deadline = time.monotonic() + SETTLE_S
        self._revive(context)
        while time.monotonic() < deadline:
            emit({"event": "progress", "phase": "asking", "remaining": 0, "total": 0, "rate": 0})
            with contextlib.suppress(XiatbError):
                busy = self._ask(context, source, "status")["outgoing"]
                now, _ = self.where(context, guest)
                if now is not None and all(one["guest"] != guest for one in busy):
                    break
            time.sleep(SETTLE_STEP_S)
        else:
            raise ControlError(
                "lost", f"the migration daemon of {source} died and was started again; it still asks {to} "
                f"what became of {guest}", hint=f"wait for {to}: xiatb status, xiatb link show",
            )  # fmt: skip
        died = f"the migration daemon of {source} died and was started again"
        if now != to:
            raise ControlError("lost", died, hint=advice("lost", guest, source, to))
        note = f"{died}: no measurements"
        return {"guest": guest, "from": source, "to": to, "transport": "xia", "note": note}

    def _run(self, context: LabContext, source: str, request: dict[str, Any], emit: Emit) -> dict[str, Any]:
        """Let the source's daemon do it; events go to `emit`, the result comes back."""
        result: dict[str, Any] = {}
        with ControlClient(socket_path(context.paths, source)) as client:
            for event in client.stream("migrate", timeout=SILENCE_S, params=request):
                told = {key: value for key, value in event.items() if key != "id"}
                if event.get("event") == "result":
                    result = {key: value for key, value in told.items() if key != "event"}
                else:
                    emit(told)
        return result

    def ended(self, context: LabContext, what: str) -> None:
        """See lab.extensions.NodeService."""
        if what.startswith(WHAT):
            self._revive(context)

    def _revive(self, context: LabContext) -> None:
        """Start daemons again that have died; each settles what its predecessor has left."""
        with self._reviving:
            if self._ending:
                return
            with self._lock:
                dead = [node for node, daemon in self._daemons.items() if not daemon.alive()]
            for node in dead:
                context.progress(f"migration daemon {node} had ended; starting it again")
                self.start_node(context, node)

    def cancel(self, context: LabContext, guest: str) -> dict[str, Any]:
        """Cancel the guest's migration; {"cancelled": False} when it is too late. ControlError if there is
        none."""
        if (told := self._tcp.cancel(guest)) is not None:
            return {"cancelled": told}
        return self._ask(context, self._source_of(context, guest), "cancel", guest=guest)

    def control(
        self, context: LabContext, guest: str, action: str, changes: dict[str, Any]
    ) -> dict[str, Any]:
        """See lab.extensions.Migrator. ControlError EUSAGE when the guest is not being migrated."""
        if action not in ACTIONS:
            raise ControlError(USAGE, f"no such action {action!r}; one of {', '.join(ACTIONS)}")
        source = self._source_of(context, guest)
        told = self._ask(context, source, action, guest=guest, **changes)
        return {"from": source, **told} if action == "show" else told

    def _source_of(self, context: LabContext, guest: str) -> str:
        """The hypervisor whose daemon moves the guest; ControlError EUSAGE when none does."""
        known = [one.name for one in context.plan.guests]
        if guest not in known:
            raise ControlError(USAGE, f"no guest named {guest!r}; guests: {', '.join(known) or 'none'}")
        for node in context.plan.kind("hypervisor"):
            with contextlib.suppress(SocketGoneError):
                moving = self._ask(context, node.name, "status")["outgoing"]
                if any(one["guest"] == guest for one in moving):
                    return node.name
        raise ControlError(USAGE, f"guest {guest} is not being migrated")

    def _check(self, plan: Plan, guest: str, to: str) -> None:
        guests = [one.name for one in plan.guests]
        if guest not in guests:
            raise ControlError(USAGE, f"no guest named {guest!r}; guests: {', '.join(guests) or 'none'}")
        hosts = [node.name for node in plan.kind("hypervisor")]
        if to not in hosts:
            raise ControlError(USAGE, f"no hypervisor host named {to!r}; hosts: {', '.join(hosts) or 'none'}")

    def _ask(self, context: LabContext, node: str, op: str, **fields: Any) -> dict[str, Any]:
        with ControlClient(socket_path(context.paths, node)) as client:
            return client.request(op, **fields)

    def _moved(self, context: LabContext, guest: str, to: str) -> None:
        """Names of the guest and its services now lead to the new location; where the file cannot be written
        they do for those who ask the name server, which hears of it from the guest."""
        node = context.plan.node(to)
        if node.ad is None:
            return
        try:
            with self._lock:
                relocate_names(context.paths.names, context.plan, guest, node)
        except OSError as error:
            context.progress(f"the names of {guest} are still those of where it was: {error}")


def _not_running(guest: str, to: str, states: dict[str, str]) -> ControlError:
    """The refusal of a guest that runs on none of the hosts with these states of it."""
    told = ", ".join(f"{node}: {state}" for node, state in sorted(states.items())) or "no daemon answers"
    places = {state: node for node, state in states.items()}
    hint = ""
    if "paused" in places:
        hint = f"let it run first: xiatb exec {places['paused']} -- virsh resume {guest}"
    elif "off" in places:
        hint = advice("not-running", guest, places["off"], to)
    return ControlError("not-running", f"guest {guest} is not running ({told})", hint=hint)


def relocate_names(path: Path, plan: Plan, guest: str, host: NodePlan) -> None:
    """Rewrite the names file (lines "name dag") so that the guest's entries have its locator at `host`, with
    the 4ID fallback that hosts there have."""
    record = plan.guest(guest)
    hid = XID.parse(record.hid)
    place = host.at(hid)
    own = {name for name, dag in plan.names.items() if DAG.parse(dag).intent_hid == hid}
    lines = []
    for line in path.read_text().splitlines():
        name, _, dag = line.partition(" ")
        if name in own:
            intent = DAG.parse(dag.strip()).intent
            line = f"{name} {place if intent == hid else served(place, intent)}"
        lines.append(line)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in lines))
    partial.replace(path)
