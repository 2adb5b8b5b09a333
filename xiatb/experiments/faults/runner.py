"""Goes through cells of the fault table with a real guest on a lab that is up, one after the other.

The guest stays where a cell has left it: the next one starts from there. Each cell migrates the guest, with
its disk, under load, strikes at the phase, and then looks: what the user is told, where the guest runs, its
memory, disk and clock through its agent, and what is left over on both hosts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.experiments.faults.strikes import IMAGES, Strikes, Undo
from xiatb.experiments.faults.table import HERE, LOST, TABLE, THERE, expected
from xiatb.experiments.guestcheck import GuestCheck
from xiatb.lab.client import LabClient
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.state import read_state
from xiatb.node.control_protocol import ControlError

Json = dict[str, Any]
Say = Callable[[str], None]
SETTLE_S = 120.0
AGENT_S = 60.0
_KEPT = ("agent-",)
_IN_THE_MIDDLE = {"postcopy": 6}
"""Events before the act: a post-copy can be taken up again once the destination has the device state."""
LOAD = {"memory_rate": 2 << 20, "disk_rate": 128 << 10, "memory_set": 12 << 20, "disk_set": 1 << 20}


@dataclass
class Report:
    """One cell as it went. `problems` is empty when everything is as the table says."""

    fault: str
    phase: str
    source: str
    destination: str
    code: str = ""
    exit_code: int = 0
    message: str = ""
    hint: str = ""
    runs_on: list[str] = field(default_factory=list)
    seconds: float = 0.0
    downtime_ms: float | None = None
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> Json:
        """Plain data."""
        return asdict(self)


class FaultRunner:
    """Cells on one lab with one guest and at least two hypervisor hosts in different ADs."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self.plan = plan
        self.paths = LabPaths(plan.lab)
        self.guest = plan.guests[0].name
        self.hosts = [node.name for node in plan.kind("hypervisor")][:2]
        self._say = say
        self._seed = plan.seed

    def run(self, fault: str, phase: str) -> Report:
        """One cell; never raises for what the cell is about."""
        source = self._home()
        destination = next(host for host in self.hosts if host != source)
        report = Report(fault, phase, source, destination)
        self._say(f"{fault} / {phase}: {self.guest} from {source} to {destination}")
        self._seed += 1
        check = GuestCheck(self._agent, self._seed)
        check.before()
        check.start_writer(**LOAD)
        strikes = Strikes(self.plan, self.guest, source, destination)
        clean = strikes.prepare(fault)
        begin = time.monotonic()
        undo = self._migrate(report, strikes)
        report.seconds = round(time.monotonic() - begin, 1)
        for act in undo:
            act()
        self._judge(report, check)
        clean()
        if TABLE[fault][phase].ends == LOST:
            self._start_again(destination)
        return report

    def _migrate(self, report: Report, strikes: Strikes) -> list[Undo]:
        options: Json = {"mode": "postcopy"} if report.phase == "postcopy" else {}
        undo: list[Undo] = []
        seen = 0
        with LabClient(self.plan.lab, timeout=300.0) as lab:
            events = lab.stream(
                "migrate", timeout=300.0,
                params={"guest": self.guest, "to": report.destination, "storage": True, **options},
            )  # fmt: skip
            try:
                for event in events:
                    if event["event"] == "result":
                        report.downtime_ms = event.get("downtime_ms")
                        report.message = str(event.get("note") or "")
                    elif not undo and _reached(event, report.phase):
                        seen += 1
                        if seen >= _IN_THE_MIDDLE.get(report.phase, 1):
                            undo.append(strikes.strike(report.fault))
            except ControlError as error:
                report.code, report.message, report.hint = error.code, error.message, error.hint
                report.exit_code = 130 if error.code == "cancelled" else 1
        if not undo:
            report.problems.append(f"the migration never was in phase {report.phase}")
        return undo

    def _judge(self, report: Report, check: GuestCheck) -> None:
        if report.phase == "switchover" and not report.code:
            report.phase = "handover"  # the switchover takes a tenth of a second: the act came after it
        outcome = expected(report.fault, report.phase, report.code)
        problems = report.problems
        self._settle(problems)
        if report.code not in outcome.codes:
            problems.append(f"ended with {report.code or 'moved'!r}, not {outcome.codes}")
        if report.code and not report.hint:
            problems.append("the user is not told what to do")
        report.runs_on = self._running()
        wanted = {HERE: [report.source], THERE: [report.destination]}.get(outcome.ends, [])
        if outcome.ends in (HERE, THERE) and report.runs_on != wanted:
            problems.append(f"runs on {report.runs_on}, not {wanted}")
        if outcome.ends in (HERE, THERE) and report.runs_on == wanted:
            check.stop_writer()
            problems += [f"{name} is damaged" for name, holds in check.contents().items() if not holds]
            if not check.uptime_monotonic():
                problems.append("it is another boot or its clock went back")
        problems += self._leftovers(report)

    def _settle(self, problems: list[str]) -> None:
        """Until no daemon has a job any more."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            daemons = self._request("status")["daemons"]
            if all(
                one.get("migrated") == "running" and not one["outgoing"] and not one["incoming"]
                for one in daemons.values()
            ):
                return
            time.sleep(0.3)
        problems.append(f"not settled: {daemons}")

    def _leftovers(self, report: Report) -> list[str]:
        """Files and processes of the migration that are still there."""
        found: list[str] = []
        for host in self.hosts:
            root = Path(f"/proc/{read_state(self.paths).nodes[host].shell.pid}/root")
            sockets = [p.name for p in (root / "run/xtb").iterdir() if not p.name.startswith(_KEPT)]
            entries = [p.name for p in (self.paths.node(host) / "migrations").glob("job-*")]
            here = host in report.runs_on
            disk = (root / IMAGES / f"{self.guest}.qcow2").exists()
            qemu = (root / f"run/libvirt/qemu/{self.guest}.pid").exists()
            found += [f"left on {host}: {name}" for name in (*sockets, *entries)]
            if not here and TABLE[report.fault][report.phase].ends != LOST and (disk or qemu):
                found.append(f"left on {host}: {'disk' if disk else ''} {'QEMU' if qemu else ''}")
        return found

    def _start_again(self, host: str) -> None:
        """What the user is told to do with a lost guest."""
        with LabClient(self.plan.lab, timeout=60.0) as lab:
            argv = ["virsh", "-c", "qemu:///system", "start", self.guest]
            lab.request("run", node=host, argv=argv)

    def _home(self) -> str:
        deadline = time.monotonic() + AGENT_S
        while time.monotonic() < deadline:
            running = self._running()
            if len(running) == 1:
                return running[0]
            time.sleep(0.5)
        raise XiatbError(f"{self.guest} runs on {self._running() or 'no host'}")

    def _running(self) -> list[str]:
        """Hosts on which the guest's QEMU runs, by libvirt's own word on each."""
        guest = next(one for one in self._request("status")["guests"] if one["name"] == self.guest)
        return [str(guest["on"])] if guest["state"] == "running" else []

    def _request(self, op: str, **fields: Any) -> Json:
        with LabClient(self.plan.lab, timeout=60.0) as lab:
            return lab.request(op, **fields)

    def _agent(self, request: Json) -> Json:
        with LabClient(self.plan.lab, timeout=AGENT_S) as lab:
            return lab.request("agent", guest=self.guest, request=request, timeout=AGENT_S)


def _reached(event: Json, phase: str) -> bool:
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


def reports(runner: FaultRunner, cells: list[tuple[str, str]]) -> Iterator[Report]:
    """All these cells, one after the other."""
    for fault, phase in cells:
        yield runner.run(fault, phase)
