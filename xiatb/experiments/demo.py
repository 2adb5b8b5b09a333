"""The demo: a guest migrates to another AD and back under load, and everything is verified.

On a lab that is up it opens a stream and a datagram probe from a host to the guest, lets the guest dirty
memory and disk, and migrates it with its disk: by pre-copy to the other hypervisor, then back with a
cancellation in the middle, then back by post-copy after some passes. It checks guest and connections each
time, and writes result.json, a capture of the inter-AD link, the probe log and the timeline picture.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xiatb.errors import UsageError
from xiatb.experiments.cancelling import Cancelled, cancel_in, runs_on
from xiatb.experiments.capturefile import count_link_bytes
from xiatb.experiments.guestcheck import GuestCheck
from xiatb.experiments.probelog import ProbeLog, Window, first_answer_after, summarise
from xiatb.experiments.probing import ProbeProcess
from xiatb.experiments.result import MigrationResult
from xiatb.experiments.rundir import RunDirectory, versions
from xiatb.experiments.timeline import Mark, Span, draw
from xiatb.lab.client import LabClient
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import GuestPlan, LinkPlan, Plan
from xiatb.lab.runner import Runner

Json = dict[str, Any]
Say = Callable[[str], None]
Follow = Callable[[Iterator[Json]], Json]
"""Shows the events of a migration and gives its result."""

_SNAPLEN = 640
_AGENT_S = 120.0
_PRECOPY: Json = {"storage": True}
_POSTCOPY: Json = {"storage": True, "mode": "hybrid", "after_passes": 2}
"""Some passes first: under TCG a guest that has to ask for every page would not answer for seconds."""


@dataclass(frozen=True)
class Load:
    """What the demo asks of guest and client: rates in bytes (or probes) a second, sets in bytes."""

    memory_rate: int = 1 << 20
    memory_set: int = 8 << 20
    disk_rate: int = 256 << 10
    disk_set: int = 2 << 20
    probe_rate: float = 1000.0
    stream_rate: int = 100_000


@dataclass
class Leg:
    """One migration as it was: where from and to, the daemon's result, the checks after it."""

    source: str
    destination: str
    outcome: Json
    stream: Json
    contents: dict[str, bool]
    uptime_monotonic: bool

    @property
    def window(self) -> Window:
        """The part of the probe log that shows it."""
        return Window.around(self.outcome)


@dataclass(frozen=True)
class Verdict:
    """What a run found: a result for each migration, the attempt that was cancelled, and in words what does
    not hold, of those and as a whole."""

    results: list[MigrationResult]
    cancelled: Cancelled
    failures: list[str]

    @property
    def verified(self) -> bool:
        """Whether everything holds."""
        return not self.failures


def inter_ad_link(plan: Plan) -> LinkPlan:
    """The first link between two ADs. Raises UsageError when there is none."""
    for link in plan.links:
        ads = {plan.node(end.node).ad for end in (link.a, link.b)}
        if len(ads) == 2 and None not in ads:
            return link
    raise UsageError(f"{plan.lab} has no link between two ADs")


def _service(plan: Plan, guest: GuestPlan, kind: str) -> str:
    for service in guest.services:
        if service.kind == kind:
            return plan.names[f"{service.name}.{guest.name}.{plan.lab}.xia"]
    raise UsageError(f"guest {guest.name} has no service of kind {kind!r}")


class Demo:
    """One run of the demo on a lab that is up."""

    def __init__(self, plan: Plan, directory: RunDirectory, runner: Runner, say: Say, follow: Follow) -> None:
        """Raises UsageError when the topology lacks what the demo needs: a guest with services, two
        hypervisor hosts in different ADs, a host for the client."""
        self.plan = plan
        self.paths = LabPaths(plan.lab)
        self.directory = directory
        self._runner = runner
        self._say = say
        self._follow = follow
        if not plan.guests or not plan.kind("host"):
            raise UsageError(f"{plan.lab} has no guest or no host for the client")
        self.guest = plan.guests[0]
        self.client = plan.kind("host")[0].name
        home = plan.node(self.guest.on)
        away = [node.name for node in plan.kind("hypervisor") if node.ad != home.ad]
        if not away:
            raise UsageError(f"{plan.lab} has no second hypervisor host in another AD")
        self.route = [(home.name, away[0]), (away[0], home.name)]
        self._lab = LabClient(plan.lab, timeout=_AGENT_S)

    def run(self, load: Load) -> Verdict:
        """All migrations; results and failures, which are in result.json too."""
        link = inter_ad_link(self.plan)
        capture_file = self.directory.path / "inter-ad.pcapng"
        clock_offset = (time.time_ns() - time.monotonic_ns()) / 1e9
        capture = self._lab.request(
            "capture_start", node=link.a.node, ports=[link.a.port], file=str(capture_file), snaplen=_SNAPLEN
        )["capture"]
        legs, cancelled, report, log = self._drive(load)
        caught = self._lab.request("capture_stop", capture=capture)
        spans: list[tuple[float, ...]] = [
            tuple(leg.outcome[key] / 1e9 + clock_offset for key in ("t_request_ns", "t_commit_ns"))
            for leg in legs
        ]
        _, parts = count_link_bytes(capture_file, spans)
        status = self._lab.request("status")
        used = versions(self._runner)
        results = [
            self._result(leg, log, part.total, part.non_xia, status, used)
            for leg, part in zip(legs, parts, strict=True)
        ]
        failures = [problem for result in results for problem in result.failures()] + cancelled.failures()
        if not report["stream_intact"]:
            failures.append("the client's stream did not end intact")
        verdict = Verdict(results, cancelled, failures)
        self._write(verdict, legs, log, report, caught, status, used)
        return verdict

    def _drive(self, load: Load) -> tuple[list[Leg], Cancelled, Json, ProbeLog]:
        self._say(
            f"opening a stream and {load.probe_rate:g} probes/s from {self.client} to {self.guest.name}"
        )
        with ProbeProcess(
            self.paths,
            self.client,
            responder=_service(self.plan, self.guest, "responder"),
            echo=_service(self.plan, self.guest, "echo"),
            directory=self.directory.path,
            rate=load.probe_rate,
            stream_rate=load.stream_rate,
            seed=self.plan.seed,
        ) as probe:
            probe.wait_ready()
            there, back = self.route
            legs = [self._leg(0, there, _PRECOPY, "by pre-copy", load, probe)]
            cancelled = self._cancelled(1, back, load, probe)
            legs.append(self._leg(2, back, _POSTCOPY, "by post-copy", load, probe))
            report, log = probe.finish()
        return legs, cancelled, report, log

    def _loaded(self, number: int, load: Load) -> GuestCheck:
        check = GuestCheck(self._ask, self.plan.seed + number)
        check.before()
        check.start_writer(load.memory_rate, load.disk_rate, load.memory_set, load.disk_set)
        return check

    def _cancelled(self, number: int, pair: tuple[str, str], load: Load, probe: ProbeProcess) -> Cancelled:
        """Begin to move the guest, cancel while its disk is copied, look at what it left."""
        source, destination = pair
        check = self._loaded(number, load)
        self._say(f"migrating {self.guest.name} from {source} to {destination}, to be cancelled")
        taken, reason = cancel_in(self.plan.lab, self.guest.name, destination, "storage", _PRECOPY)
        check.stop_writer()
        self._say(f"cancelled in {taken:.0f} ms; verifying {self.guest.name} on {source}")
        stayed = runs_on(self._lab.request("status"), self.guest.name) == source
        return Cancelled(
            self.guest.name, source, destination, "storage", round(taken, 3), reason, stayed,
            check.contents(), check.uptime_monotonic(), probe.check()["stream_intact"],
        )  # fmt: skip

    def _leg(
        self, number: int, pair: tuple[str, str], options: Json, how: str, load: Load, probe: ProbeProcess
    ) -> Leg:
        source, destination = pair
        check = self._loaded(number, load)
        self._say(f"migrating {self.guest.name} from {source} to {destination} {how}, with its disk")
        events = self._lab.stream("migrate", guest=self.guest.name, to=destination, **options)
        outcome = self._follow(events)
        check.stop_writer()
        self._say(f"verifying {self.guest.name} on {destination}")
        return Leg(source, destination, outcome, probe.check(), check.contents(), check.uptime_monotonic())

    def _ask(self, request: Json) -> Json:
        return self._lab.request("agent", guest=self.guest.name, request=request, timeout=_AGENT_S)

    def _result(
        self, leg: Leg, log: ProbeLog, on_wire: int, non_xia: int, status: Json, used: dict[str, str]
    ) -> MigrationResult:
        outcome, probes = leg.outcome, summarise(log, leg.window)
        keys = ("t_request_ns", "t_stop_ns", "t_resume_ns", "t_attached_ns", "t_commit_ns")
        stamps: dict[str, int | None] = {key: outcome.get(key) for key in keys}
        stamps["t_first_answer_ns"] = first_answer_after(log, outcome["t_resume_ns"])
        return MigrationResult(
            guest=self.guest.name,
            source=leg.source,
            destination=leg.destination,
            total_ms=outcome["total_ms"],
            downtime_ms=outcome["downtime_ms"],
            client_gap_ms=round(probes.gap_ms, 3),
            client_outage_ms=round(probes.outage_ms, 3),
            probes_sent=probes.sent,
            probes_lost=probes.lost,
            probe_rtt_ms=round(probes.rtt_median_ms, 3),
            stream_bytes=leg.stream["stream_bytes"],
            stream_intact=leg.stream["stream_intact"],
            guest_uptime_monotonic=leg.uptime_monotonic,
            disk_intact=leg.contents["file_before"] and leg.contents["disk_during"],
            bytes_on_wire=on_wire,
            bytes_qemu=sum(outcome["bytes_qemu"].values()),
            passes=len(outcome["passes"]),
            non_xia_bytes=non_xia,
            accel=outcome["accel"],
            mode=outcome.get("mode", "precopy"),
            shaping_backend=status["shaping_backend"],
            versions=used,
            seed=self.plan.seed,
            timestamps_ns=stamps,
            details={
                "contents": leg.contents,
                "migration": outcome,
                "engines": {node["name"]: node["engine"] for node in status["nodes"]},
            },
        )

    def _write(
        self,
        verdict: Verdict,
        legs: list[Leg],
        log: ProbeLog,
        report: Json,
        caught: Json,
        status: Json,
        used: dict[str, str],
    ) -> None:
        self.directory.write_json(
            "result.json",
            {
                "lab": self.plan.lab,
                "verified": verdict.verified,
                "failures": verdict.failures,
                "migrations": [result.to_json() for result in verdict.results],
                "cancelled": verdict.cancelled.to_json(),
                "stream": report,
                "capture": caught,
            },
        )
        self.directory.write_json(
            "manifest.json",
            {"topology": self.plan.topology, "seed": self.plan.seed, "versions": used, "status": status},
        )
        shutil.copy(self.plan.topology, self.directory.path / Path(self.plan.topology).name)
        draw(log, [_span(leg, log) for leg in legs], self.directory.path / "timeline.png")


def _span(leg: Leg, log: ProbeLog) -> Span:
    outcome = leg.outcome
    marks = [Mark("request", outcome["t_request_ns"])]
    marks += [Mark("pass", one["start_ns"]) for one in outcome["passes"]]
    marks += [Mark("STOP", outcome["t_stop_ns"]), Mark("RESUME", outcome["t_resume_ns"])]
    answer = first_answer_after(log, outcome["t_resume_ns"])
    if answer is not None:
        marks.append(Mark("first answer", answer))
    return Span(f"{leg.source} to {leg.destination}", leg.window, marks)
