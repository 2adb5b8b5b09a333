"""Goes through cells of the fault table with a real guest on a lab that is up, one after the other.

The guest stays where a cell has left it: the next one starts from there. Each cell migrates the guest, with
its disk, under load, strikes at the phase, and then looks: what the user is told, where the guest runs, its
memory, disk and clock through its agent, and what is left over on both hosts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from xiatb.errors import XiatbError
from xiatb.experiments.faults.aftermath import Aftermath
from xiatb.experiments.faults.holding import Hold, started
from xiatb.experiments.faults.hostview import HostView
from xiatb.experiments.faults.lockwatch import LockWatch, stands_still
from xiatb.experiments.faults.strikes import Strikes, Undo, writing
from xiatb.experiments.faults.table import BEFORE, HERE, LOST, PAUSED, TABLE
from xiatb.experiments.guestcheck import GuestCheck
from xiatb.lab.client import LabClient
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.state import read_state
from xiatb.node.control_protocol import ControlError

Json = dict[str, Any]
Say = Callable[[str], None]
AGENT_S = 60.0
BOOT_S = 180.0
"""A guest starts anew in seven seconds on an idle machine, in fifty beside other labs."""
NEW_FILE = 1 << 20
MIGRATE_S = 150.0
"""Longest silence of a migration; the daemon tells of its progress ten times a second."""
MOST_S = 200.0
"""Longest time after the blow, or after the beginning, until a migration has ended one way or the other."""
_EARLY = 3
_IN_THE_MIDDLE = {"postcopy": 6}
"""Events before the act: a post-copy can be taken up again once the destination has the device state."""
SERVE_S = 0.03
"""Pulses in which the source serves pages, until the guest waits for one with QEMU's lock held."""
PATIENCE_S = 30.0
_PATIENCE = {"cut": 90.0, "cancel": 10.0}
"""Longest time after the blow until the user of a guest that stays is told, by fault."""
_HELD = ("switchover", "handover")
LOAD = {"memory_rate": 2 << 20, "disk_rate": 128 << 10, "memory_set": 12 << 20, "disk_set": 1 << 20}


@dataclass
class Report:
    """One cell as it went. `problems` is empty when everything is as the table says; `answered_s` is how long
    after the blow the user was told; `ended`: whether the migration was seen to end."""

    fault: str
    phase: str
    source: str = ""
    destination: str = ""
    ended: bool = False
    code: str = ""
    exit_code: int = 0
    message: str = ""
    hint: str = ""
    runs_on: list[str] = field(default_factory=list)
    seconds: float = 0.0
    answered_s: float = 0.0
    downtime_ms: float | None = None
    lock_held_s: float = 0.0
    """Longest time in a post-copy for which the destination's QEMU had its main lock held; see lockwatch."""
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> Json:
        """Plain data."""
        return asdict(self)


class FaultRunner:
    """Cells on one lab with one guest and at least two hypervisor hosts in different ADs."""

    def __init__(self, plan: Plan, say: Say, *, locked: bool = False) -> None:
        """`locked`: strike in a post-copy once the destination's QEMU stands still with its lock held."""
        self.plan = plan
        self.paths = LabPaths(plan.lab)
        self.guest = plan.guests[0].name
        self.views = [HostView(self.paths, node.name) for node in plan.kind("hypervisor")[:2]]
        self.after = Aftermath(plan, self.guest, self.views)
        self._say = say
        self._locked = locked
        self._seed = plan.seed
        self.ruined = False
        self._struck = 0.0

    def run(self, fault: str, phase: str) -> Report:
        """One cell; never raises for what the cell is about. `ruined` tells whether another can follow."""
        report = Report(fault, phase)
        try:
            self._run(report)
        except XiatbError as error:
            report.problems.append(error.message)
            self.ruined = True
        return report

    def _run(self, report: Report) -> None:
        fault, phase = report.fault, report.phase
        report.source = source = self._home()
        report.destination = destination = next(view.name for view in self.views if view.name != source)
        self._say(f"{fault} / {phase}: {self.guest} from {source} to {destination}")
        self._seed += 1
        check = GuestCheck(self._agent, self._seed, "/var/tmp/before")
        check.before()
        check.start_writer(**LOAD)
        strikes = Strikes(self.plan, self.guest, source, destination, self._write_more)
        clean = strikes.prepare(fault)
        try:
            begin = time.monotonic()
            undo = self._watched(report, strikes)
            report.seconds = round(time.monotonic() - begin, 1)
            report.answered_s = round(time.monotonic() - self._struck, 1)
            report.ended = True
            for act in undo:
                self._try(report, act)
            self._judge(report, check, strikes)
        except BaseException:  # interrupted, too
            strikes.abandon()
            raise
        finally:
            clean()

    def _watched(self, report: Report, strikes: Strikes) -> list[Undo]:
        """The migration; of a post-copy it is kept for how long QEMU stood still with its lock held."""
        if report.phase != "postcopy":
            return self._migrate(report, strikes)
        with LockWatch(lambda: self._qemu(report.destination)) as watch:
            undo = self._migrate(report, strikes)
        report.lock_held_s = round(watch.longest_s, 1)
        return undo

    def _qemu(self, host: str) -> int:
        """The guest's process on `host`, 0: none."""
        try:
            return next(view for view in self.views if view.name == host).qemu_pid(self.guest)
        except XiatbError:
            return 0

    def _migrate(self, report: Report, strikes: Strikes) -> list[Undo]:
        self._struck = time.monotonic()
        options: Json = {"mode": "postcopy"} if report.phase == "postcopy" else {}
        before = (report.fault, report.phase) in BEFORE
        undo = [strikes.strike(report.fault, report.phase)] if before else []
        seen = 0
        try:
            for event in self._events(report.destination, options):
                if time.monotonic() - self._struck > MOST_S:
                    raise XiatbError(f"the migration does not end: {event}")
                if event["event"] == "result":
                    report.downtime_ms = event.get("downtime_ms")
                    report.message = str(event.get("note") or "")
                elif not undo and reached(event, report.phase):
                    seen += 1
                    if seen >= (_EARLY if self._locked else _IN_THE_MIDDLE.get(report.phase, 1)):
                        undo.append(self._strike(report, strikes))
        except ControlError as error:
            report.code, report.message, report.hint = error.code, error.message, error.hint
            report.exit_code = 130 if error.code == "cancelled" else 1
        if not undo:
            report.problems.append(f"the migration never was in phase {report.phase}")
        return undo

    def _strike(self, report: Report, strikes: Strikes) -> Undo:
        """The blow, in the phase: phases that last an instant are held for it."""
        self._struck = time.monotonic()
        locked = self._locked and report.phase == "postcopy"
        if report.phase not in _HELD and not locked:
            return strikes.strike(report.fault, report.phase)
        with Hold(read_state(self.paths).processes[f"migrated {report.source}"]) as hold:
            if report.phase == "handover":
                begun = partial(started, self.paths, report.destination)
                hold.until(begun, "the destination does not start the guest")
            elif locked:
                pid = self._qemu(report.destination)
                hold.until(partial(stands_still, pid), "QEMU's lock was never held", SERVE_S)
            return strikes.strike(report.fault, report.phase)

    def _events(self, to: str, options: Json) -> Any:
        with LabClient(self.plan.lab, timeout=MIGRATE_S) as lab:
            wanted = {"guest": self.guest, "to": to, "storage": True, **options}
            yield from lab.stream("migrate", timeout=MIGRATE_S, params=wanted)

    def _judge(self, report: Report, check: GuestCheck, strikes: Strikes) -> None:
        outcome, problems, after = TABLE[report.fault][report.phase], report.problems, self.after
        problems += after.settle()
        if report.code not in outcome.codes:
            problems.append(f"ended with {report.code or 'moved'!r}, not {outcome.codes}")
        if outcome.ends == HERE and report.answered_s > _PATIENCE.get(report.fault, PATIENCE_S):
            problems.append(f"the user was told after {report.answered_s:g} s")
        if report.code and not report.hint:
            problems.append("the user is not told what to do")
        there = next(view for view in self.views if view.name == report.destination)
        if outcome.ends == PAUSED:
            self._make_room(report, strikes, there)
        report.runs_on = after.runs_on()
        if outcome.ends == LOST:
            problems += [*after.nowhere(there.name), *after.litter()]
            there.virsh("start", self.guest)
            self._agent({"op": "ready"}, BOOT_S)
            return
        wanted = report.source if outcome.ends == HERE else there.name
        problems += after.once(wanted)
        if report.runs_on == [wanted]:
            problems += after.whole(check)
        problems += after.litter()
        if report.fault == "disk-full" and report.runs_on == [there.name]:
            self._bring_back(report.source)  # its disk lies in the small file system

    def _make_room(self, report: Report, strikes: Strikes, there: HostView) -> None:
        """As the user is told: the guest waits; make room, let it go on."""
        with writing(self._write_more):  # it is answered only once there is room
            report.problems += self.after.wait_full(there)
            strikes.make_room()
            if not report.problems:
                there.virsh("resume", self.guest)
        self.after.wait_running(there)

    def _bring_back(self, source: str) -> None:
        for _ in self._events(source, {}):
            pass
        self.after.settle()

    def _try(self, report: Report, act: Undo) -> None:
        try:
            act()
        except XiatbError as error:
            report.problems.append(error.message)

    def _write_more(self) -> None:
        """A new file in the guest, of blocks that its disk has not had."""
        path = f"/var/tmp/more-{self._seed}"
        self._agent({"op": "write_file", "path": path, "size": NEW_FILE, "seed": self._seed})

    def _home(self) -> str:
        """Where the guest runs and answers."""
        deadline = time.monotonic() + AGENT_S
        while time.monotonic() < deadline:
            running = self.after.runs_on()
            if len(running) == 1:
                return running[0]
            time.sleep(0.5)
        raise XiatbError(f"{self.guest} runs on {self.after.runs_on() or 'no host'}")

    def _agent(self, request: Json, seconds: float = AGENT_S) -> Json:
        with LabClient(self.plan.lab, timeout=seconds) as lab:
            return lab.request("agent", guest=self.guest, request=request, timeout=seconds, limit=seconds)


def reached(event: Json, phase: str) -> bool:
    """Whether the event says that the migration is in the middle of `phase`."""
    kind, now = event["event"], event.get("phase")
    if phase == "storage":
        return kind == "progress" and now == "storage" and event["transferred"] > 0
    if phase == "first":
        return kind == "progress" and now == "precopy" and event["pass"] <= 1 and event["transferred"] > 0
    if phase == "later":
        return kind == "progress" and now == "precopy" and event["pass"] > 1
    if phase == "postcopy":
        return kind == "progress" and now == "postcopy"
    return kind == "phase" and now == phase
