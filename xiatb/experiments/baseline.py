"""The baseline experiment: the same guest, links and client over XIA and over TCP/IP, in turns.

On a lab that is up, with `baseline: ip`, the guest goes round over a list of hypervisors and home again,
first by one transport, then by the other. On every leg a fresh client probes the guest over that same
transport (1,000 datagrams a second and a stream), so that connections that break in one leg do not count in
the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xiatb.errors import UsageError
from xiatb.experiments.guestcheck import GuestCheck
from xiatb.experiments.probelog import BEFORE_NS, ProbeLog, Window, summarise
from xiatb.experiments.probing import ProbeProcess
from xiatb.experiments.rundir import RunDirectory, versions
from xiatb.experiments.sidebyside import TRANSPORTS, Sample, compare, to_json
from xiatb.guests.agent.services.ipecho import PORT
from xiatb.lab.baseline import Baseline
from xiatb.lab.client import LabClient
from xiatb.lab.context import namespace_pid
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import GuestPlan, Plan
from xiatb.lab.runner import Runner
from xiatb.lab.state import read_state

Json = dict[str, Any]
Follow = Callable[[Iterator[Json]], Json]
AGENT_S = 60.0
LAST_S = 0.5
"""Longest round trip: the last requests of the window are to have their answers."""
_MODULES = {"xia": "xiatb.experiments.probeclient", "tcp": "xiatb.experiments.ipclient"}


def baseline_of(plan: Plan) -> Baseline:
    """The plan's IPv4 beside XIA; UsageError when it has none, or no guest, or no host for the client."""
    if plan.baseline is None:
        raise UsageError(f"{plan.lab} has no IPv4 beside XIA", hint="write baseline: ip in its topology")
    if not plan.guests or not plan.kind("host"):
        raise UsageError(f"{plan.lab} has no guest or no host for the client")
    return plan.baseline


class BaselineRun:
    """One comparison on a lab that is up."""

    def __init__(
        self, plan: Plan, directory: RunDirectory, runner: Runner, say: Callable[[str], None], follow: Follow
    ) -> None:
        """`follow` shows a migration's events and gives its result. Raises UsageError when the lab lacks what
        is needed: the baseline, a guest with the services echo and responder, a host for the client."""
        self._plan = plan
        self._baseline = baseline_of(plan)
        self._paths = LabPaths(plan.lab)
        self._directory = directory
        self._runner = runner
        self._say = say
        self._follow = follow
        self._guest: GuestPlan = plan.guests[0]
        self._client = plan.kind("host")[0].name
        self._lab = LabClient(plan.lab, timeout=AGENT_S)
        self._outcomes: list[Json] = []

    def route(self, hosts: Sequence[str]) -> list[tuple[str, str]]:
        """The legs over these hypervisors and home again; without any: over all others, those of the
        home's AD first. Raises UsageError."""
        home = self._plan.node(self._guest.on)
        known = {node.name: node for node in self._plan.kind("hypervisor")}
        if unknown := [host for host in hosts if host not in known]:
            raise UsageError(f"no hypervisor host named {unknown[0]!r}", hint=f"hosts: {', '.join(known)}")
        others = [name for name in known if name != home.name]
        stops = list(hosts) or sorted(others, key=lambda name: known[name].ad != home.ad)
        path = [home.name, *stops, *([home.name] if stops and stops[-1] != home.name else [])]
        legs = list(zip(path, path[1:], strict=False))
        if not legs or any(a == b for a, b in legs):
            raise UsageError("nowhere to go", hint="name hosts other than the one that the guest is on")
        return legs

    def run(self, hosts: Sequence[str], repeat: int, options: Json, storage: bool) -> list[Sample]:
        """All migrations, `repeat` rounds of each transport, which take turns in being first; samples, which
        are in result.json too. `options`: plain data of migration.options."""
        legs, samples = self.route(hosts), []
        for number in range(repeat):
            for transport in TRANSPORTS if number % 2 == 0 else TRANSPORTS[::-1]:
                for source, destination in legs:
                    samples.append(self._leg(transport, source, destination, options, storage))
        self._directory.write_json(
            "result.json",
            {
                "lab": self._plan.lab,
                "guest": self._guest.name,
                "client": self._client,
                "storage": storage,
                "legs": compare(samples),
                "samples": [to_json(sample) for sample in samples],
                "migrations": self._outcomes,
            },
        )
        self._directory.write_json(
            "manifest.json",
            {"topology": self._plan.topology, "seed": self._plan.seed, "versions": versions(self._runner)},
        )
        return samples

    def _leg(self, transport: str, source: str, destination: str, options: Json, storage: bool) -> Sample:
        self._say(f"{self._guest.name}: {source} -> {destination} over {transport}")
        check = GuestCheck(self._ask, len(self._outcomes))
        check.before()
        place = self._directory.path / f"{len(self._outcomes):02d}-{transport}-{source}-{destination}"
        place.mkdir()
        with self._probe(transport, source, place) as probe:
            probe.wait_ready()
            time.sleep(BEFORE_NS / 1e9 + LAST_S)  # the window of the figures begins before the request
            before = self._port_bytes(source)
            events = self._lab.stream(
                "migrate", guest=self._guest.name, to=destination, storage=storage,
                params={**(options if transport == "xia" else _common(options)), "transport": transport},
            )  # fmt: skip
            outcome = self._follow(events)
            wire = self._port_bytes(source) - before
            stream = probe.check()
            # The window of the figures ends a while after the commit, and so must the probes.
            time.sleep(Window.around(outcome).left_s() + LAST_S)
            _, log = probe.finish()
        self._outcomes.append(outcome)
        return self._sample(outcome, stream, log, wire, check.uptime_monotonic())

    def _probe(self, transport: str, source: str, directory: Path) -> ProbeProcess:
        """A client of the guest while that is on `source`."""
        if transport == "tcp":
            responder = echo = f"{self._baseline.address(self._guest.name, source)}:{PORT}"
        else:
            responder, echo = self._name("responder"), self._name("echo")
        return ProbeProcess(
            self._paths, self._client, responder=responder, echo=echo, directory=directory,
            seed=self._plan.seed, module=_MODULES[transport],
        )  # fmt: skip

    def _name(self, kind: str) -> str:
        """The address of the guest's service now, from the lab's names."""
        service = next((one.name for one in self._guest.services if one.kind == kind), None)
        wanted = f"{service}.{self._guest.name}.{self._plan.lab}.xia"
        for line in self._paths.names.read_text().splitlines():
            name, _, dag = line.partition(" ")
            if name == wanted:
                return dag.strip()
        raise UsageError(f"guest {self._guest.name} has no service of kind {kind!r}")

    def _port_bytes(self, node: str) -> int:
        """Bytes of all frames in and out of the node's links so far."""
        links = {port.name for port in self._plan.node(node).ports if port.role == "link"}
        pid = namespace_pid(read_state(self._paths), node)
        total = 0
        for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]:
            name, _, numbers = line.partition(":")
            if name.strip() in links:
                fields = numbers.split()
                total += int(fields[0]) + int(fields[8])
        return total

    def _ask(self, request: Json) -> Json:
        return self._lab.request("agent", guest=self._guest.name, request=request, timeout=AGENT_S)

    def _sample(self, outcome: Json, stream: Json, log: ProbeLog, wire: int, same_boot: bool) -> Sample:
        probes = summarise(log, Window.around(outcome))
        source, destination = outcome["from"], outcome["to"]
        sent = outcome["bytes_qemu"]
        return Sample(
            transport=outcome["transport"],
            source=source,
            destination=destination,
            same_ad=self._plan.node(source).ad == self._plan.node(destination).ad,
            total_ms=outcome["total_ms"],
            downtime_ms=outcome["downtime_ms"],
            client_gap_ms=round(probes.gap_ms, 3),
            client_answered=_answered_after(log, outcome["t_resume_ns"]),
            probes_sent=probes.sent,
            probes_lost=probes.lost,
            session_kept=bool(stream["stream_intact"]),
            session_error=str(stream["stream_error"]),
            same_boot=same_boot,
            bytes_qemu=sent["ram"] + sent["nbd"],
            bytes_on_wire=wire,
            passes=len(outcome["passes"]),
        )


def _answered_after(log: ProbeLog, instant_ns: int) -> bool:
    """Whether a request that was sent after this instant was answered."""
    return any(out >= instant_ns and back for out, back in zip(log.sent, log.answered, strict=True))


def _common(options: Json) -> Json:
    """Without what only a migration over XIA has."""
    return {key: value for key, value in options.items() if key not in ("congestion", "encrypt", "verify")}
