"""The lab that migrations are measured in: guests on hypervisors in two ADs, a client 25 ms away, IPv4 on the
same links for the baseline; and what is done in it."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.experiments.ownlab import own_lab
from xiatb.experiments.probelog import ProbeSummary, Window, summarise
from xiatb.experiments.probing import ProbeProcess
from xiatb.lab.client import LabClient
from xiatb.lab.namespaces import inside
from xiatb.lab.paths import NETNS_ROOT, LabPaths, netns_name
from xiatb.lab.plan import Plan

Json = dict[str, Any]
SILENCE_S = 300.0
AGENT_S = 120.0
LAST_S = 0.2
"""For the last answers of a window."""
WRITTEN = 4 << 20
RATE = "100mbit"
TOPOLOGY = """
name: benchmigration
{extra}
defaults:
  link: {{mtu: {mtu}}}
ads: {{ad1: null, ad2: null}}
nodes:
  client: {{kind: host}}
  r1: {{kind: router, ad: ad1}}
  r2: {{kind: router, ad: ad2}}
  hv1: {{kind: hypervisor, ad: ad1}}
  hv2: {{kind: hypervisor, ad: {second}}}
guests:
  vm1:
    on: hv1
    memory: {memory}
    services: [echo, responder, writer]
{disk}
links:
  - {{endpoints: [client, r1], delay: 12.5ms}}
  - {{endpoints: [hv1, r1]}}
  - {{endpoints: [hv2, {router}]}}
  - {{endpoints: [r1:eth9, r2:eth9], rate: 100mbit, delay: {delay}}}
"""


@dataclass(frozen=True)
class Shape:
    """A lab. second: the AD of hv2, "ad1" for migrations inside an AD, which then go over {delay} of the link
    to the router and not between the ADs. shared: hypervisors see one disk, so that memory alone moves."""

    mtu: int = 9000
    intra: bool = False
    shared: bool = False
    baseline: bool = False
    memory: str = "128M"
    delay: str = "5ms"

    def text(self) -> str:
        """The topology file."""
        return TOPOLOGY.format(
            extra="baseline: ip" if self.baseline else "",
            mtu=self.mtu,
            second="ad1" if self.intra else "ad2",
            router="r1" if self.intra else "r2",
            memory=self.memory,
            disk="    disk: shared" if self.shared else "",
            delay=self.delay,
        )


@dataclass
class Ground:
    """A lab that is up. `at` is the host that the guest runs on."""

    lab: str
    plan: Plan
    client: LabClient
    directory: Path
    at: str = "hv1"
    probes: int = field(default=0)

    def migrate(self, *, storage: bool = True, **options: Any) -> Json:
        """Move vm1 to the other host; the daemon's result. Raises XiatbError."""
        to = "hv2" if self.at == "hv1" else "hv1"
        events = self.client.stream(
            "migrate", timeout=SILENCE_S, guest="vm1", to=to, storage=storage, params=options
        )
        result: Json = {}
        for event in events:
            if event.get("event") == "result":
                result = event
        self.at = to
        if not result.get("t_resume_ns") or not result.get("t_stop_ns"):
            raise XiatbError("the guest moved, but STOP or RESUME were not seen")
        return result

    def plan_of(self, **options: Any) -> Json:
        """What the next `migrate` with storage would be."""
        to = "hv2" if self.at == "hv1" else "hv1"
        return self.client.request(
            "migrate_plan", timeout=SILENCE_S, guest="vm1", to=to, storage=True, params=options
        )

    def agent(self, request: Json) -> Json:
        """A request to the guest's agent."""
        return self.client.request("agent", guest="vm1", request=request, timeout=AGENT_S)

    def writer(self, rate: int) -> None:
        """Let the guest write `rate` bytes a second into WRITTEN bytes of memory; 0 to stop."""
        if rate:
            options = {"memory_rate": rate, "memory_set": WRITTEN, "disk_rate": 0, "disk_set": 0}
            self.agent({"op": "service", "service": "writer", "command": "start", **options})
        else:
            self.agent({"op": "service", "service": "writer", "command": "stop"})

    def link(self, a: str, b: str, **values: str) -> None:
        """Give a link these parameters and no others."""
        self.client.request("link_set", timeout=60, params={"a": a, "b": b, "set": values, "replace": True})

    def on_wire(self) -> int:
        """Bytes of all frames that have crossed the link between the ADs, in both directions."""
        with inside(NETNS_ROOT / netns_name(self.lab, "r1")):
            text = Path("/proc/thread-self/net/dev").read_text(encoding="ascii")
        words = next(line for line in text.splitlines() if "eth9:" in line).split(":")[1].split()
        return int(words[0]) + int(words[8])

    def names(self) -> dict[str, str]:
        """Names of the lab to DAGs, as they are now."""
        lines = LabPaths(self.lab).names.read_text().splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))

    @contextlib.contextmanager
    def probing(self, rate: float = 1000.0, stream_rate: int = 100_000) -> Iterator[ProbeProcess]:
        """A client with a stream and open-loop probes to vm1."""
        self.probes += 1
        directory = self.directory / f"probe{self.probes}"
        directory.mkdir()
        names = self.names()
        with ProbeProcess(
            LabPaths(self.lab), "client",
            responder=names[f"responder.vm1.{self.lab}.xia"], echo=names[f"echo.vm1.{self.lab}.xia"],
            directory=directory, rate=rate, stream_rate=stream_rate, seed=self.probes,
        ) as probe:  # fmt: skip
            probe.wait_ready()
            yield probe

    def probed(self, runs: int, migrate: Callable[[], Json]) -> list[tuple[Json, ProbeSummary]]:
        """`runs` migrations under 1,000 probes a second: each one's result and what the client saw."""
        with self.probing() as probe:
            results = [self._watched(migrate) for _ in range(runs)]
            report, log = probe.finish()
        if not report["stream_intact"]:
            raise XiatbError(f"the client's stream did not end intact: {report['stream_error']}")
        return [(one, summarise(log, Window.around(one))) for one in results]

    def _watched(self, migrate: Callable[[], Json]) -> Json:
        """A migration whose window ends before anything else happens."""
        result = migrate()
        time.sleep(Window.around(result).left_s() + LAST_S)
        return result


@contextlib.contextmanager
def ground(shape: Shape) -> Iterator[Ground]:
    """Bring the lab up under a name of its own; down again at the end, whatever happens. Raises what
    launch.bring_up raises, InvalidFileError for a shape that this version of labs does not know."""
    lab = f"bm{secrets.token_hex(3)}"
    with tempfile.TemporaryDirectory(prefix="xiatb-bench-") as directory:
        file = Path(directory) / "bench.yaml"
        file.write_text(shape.text(), encoding="utf-8")
        with own_lab(file, lab) as plan, LabClient(lab) as client:
            yield Ground(lab, plan, client, Path(directory))
