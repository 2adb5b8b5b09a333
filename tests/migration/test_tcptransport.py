"""libvirt's own migration over TCP: what it is asked for, when routes move, what is left after a failure.

The hypervisors are recorded; the real thing is in tests/experiments/test_baseline.py."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.migration.samples import REQUEST
from xiatb.lab.load import load
from xiatb.lab.planner import make_plan
from xiatb.migration import baseline, hosting, tcptransport
from xiatb.migration.driver import DriverError, GuestEvent
from xiatb.migration.facts import GuestFacts
from xiatb.migration.messages import Disk
from xiatb.migration.options import Options
from xiatb.node.control_protocol import ControlError

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"
PLAN = make_plan(load(TOPOLOGIES / "baseline.yaml"))
BASELINE = PLAN.baseline
assert BASELINE is not None
DISK = "/var/lib/libvirt/images/vm1.qcow2"


class Hosts:
    """Both hypervisors and their nodes; `acts` is what happened, in order."""

    def __init__(self, root: Path, fail: str = "") -> None:
        self.root = root
        self.fail = fail
        self.acts: list[tuple[str, ...]] = []
        self.at = "hv1"
        self.migrated: dict[str, Any] = {}
        self.plan = PLAN
        self.drivers: dict[str, FakeDriver] = {}

    @property
    def paths(self) -> Any:
        return type("Paths", (), {"root": self.root / "lab"})

    def node_pid(self, node: str) -> int:
        return 0

    def ask_node(self, node: str, op: str, **_: Any) -> dict[str, Any]:
        self.acts.append((op, node))
        return {}


class FakeDriver:
    """One hypervisor's libvirt; `migrate` plays QEMU's events on both."""

    def __init__(self, hosts: Hosts, name: str, on_event: Callable[[GuestEvent], None]) -> None:
        self.hosts, self.name, self.on_event = hosts, name, on_event
        hosts.drivers[name] = self
        self.aborted = asyncio.Event()

    async def open(self) -> None: ...

    async def close(self) -> None:
        self.hosts.acts.append(("close", self.name))

    async def guest(self, name: str) -> GuestFacts | None:
        if self.hosts.at != self.name:
            return None
        return GuestFacts(name, "u", "tcg", "q35", 1 << 27, 1, "tap0", (("vda", DISK, "qcow2"),), (), "")

    async def state(self, name: str) -> str:
        return "running" if self.hosts.at == self.name else "absent"

    async def migrate(self, name: str, uri: str, parameters: dict[str, Any], flags: int) -> None:
        self.hosts.migrated = {"uri": uri, "parameters": parameters, "flags": flags}
        there = next(driver for driver in self.hosts.drivers.values() if driver is not self)
        self.tell("MIGRATION", status="active")
        self.tell("MIGRATION_PASS", **{"pass": 1})
        if self.hosts.fail == "cancel":
            await self.aborted.wait()
            raise DriverError("operation aborted: migration out job: canceled by client")
        self.tell("STOP")
        if self.hosts.fail == "late":
            self.tell("RESUME")
            raise DriverError("internal error: unable to connect")
        self.hosts.at = there.name
        there.tell("RESUME")

    async def abort(self, name: str) -> None:
        self.aborted.set()

    async def job_stats(self, name: str) -> dict[str, Any]:
        return {}

    async def completed_stats(self, name: str) -> dict[str, Any]:
        return {"memory_processed": 5000}

    def tell(self, kind: str, **data: Any) -> None:
        self.on_event(GuestEvent("other", kind, time.monotonic_ns(), data))
        self.on_event(GuestEvent("vm1", kind, time.monotonic_ns(), data))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hosts]:
    def hosts(fail: str = "") -> Hosts:
        made = Hosts(tmp_path, fail)
        monkeypatch.setattr(tcptransport, "Driver", lambda uri, on_event: FakeDriver(made, uri, on_event))
        monkeypatch.setattr(tcptransport, "uri", lambda root: root.name)
        monkeypatch.setattr(tcptransport.TcpMigration, "_root", lambda self, node: tmp_path / node)
        monkeypatch.setattr(tcptransport.TcpMigration, "_round_trip", lambda self: 0.0)

        async def inspect(target: str, path: str, form: str) -> Disk:
            return Disk(target=target, path=path, size=1 << 30, format=form, allocated=7000)

        async def create(disk: Disk) -> None:
            made.acts.append(("create", disk.path))
            Path(disk.path).parent.mkdir(parents=True)
            Path(disk.path).touch()

        monkeypatch.setattr(hosting, "inspect_disk", inspect)
        monkeypatch.setattr(hosting, "create_disk", create)
        for name in ("place_guest", "forget_guest"):
            act = name.partition("_")[0]
            monkeypatch.setattr(
                tcptransport.baselinenet,
                name,
                lambda plan, guest, host, act=act: made.acts.append((act, host)),
            )
        source = tmp_path / "hv1" / DISK.lstrip("/")
        source.parent.mkdir(parents=True)
        source.touch()
        return made

    return hosts


def disk(hosts: Hosts, node: str) -> Path:
    return hosts.root / node / DISK.lstrip("/")


def migrate(hosts: Hosts, to: str = "hv3", *, storage: bool = True, **wanted: Any) -> dict[str, Any]:
    return baseline.TcpTransport().migrate(hosts, "vm1", "hv1", to, storage, wanted, lambda event: None)  # type: ignore[arg-type]


def test_libvirt_gets_addresses_of_the_lab_and_no_sockets(make: Callable[..., Hosts]) -> None:
    hosts = make()
    result = migrate(hosts)
    assert BASELINE is not None
    there = BASELINE.node("hv3").address
    assert hosts.migrated["uri"] == f"qemu+tcp://{there}/system"
    told = hosts.migrated["parameters"]
    assert told[libvirt.VIR_MIGRATE_PARAM_URI] == f"tcp://{there}"
    assert told[libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS] == there
    assert told[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] == ["vda"]
    assert not any("unix:" in str(value) for value in told.values())
    assert hosts.migrated["flags"] & libvirt.VIR_MIGRATE_PEER2PEER
    assert hosts.migrated["flags"] & libvirt.VIR_MIGRATE_NON_SHARED_DISK
    assert result["transport"] == "tcp" and result["bytes_qemu"] == {"rpc": 0, "ram": 5000, "nbd": 7000}
    stamps = [result[f"t_{name}_ns"] for name in ("request", "stop", "resume", "attached", "commit")]
    assert stamps == sorted(stamps) and stamps[0] > 0
    assert [phase["name"] for phase in result["phases"]] == [
        "transfer", "storage", "precopy", "switchover", "done",
    ]  # fmt: skip
    assert result["locator"] == BASELINE.address("vm1", "hv3") and len(result["passes"]) == 1


def test_the_route_moves_when_the_guest_resumes_and_its_disk_is_at_one_place(
    make: Callable[..., Hosts],
) -> None:
    hosts = make()
    migrate(hosts)
    acts = [act for act in hosts.acts if act[0] != "create"]
    assert ("place", "hv3") in acts and acts.count(("place", "hv3")) == 1
    assert {("guest_detach", "hv1"), ("guest_expect", "hv3")} <= set(acts), "the guest is a XIA host as well"
    assert disk(hosts, "hv3").exists() and not disk(hosts, "hv1").exists()


def test_memory_alone_needs_the_disk_at_both_places(make: Callable[..., Hosts]) -> None:
    hosts = make()
    with pytest.raises(ControlError, match="does not have"):
        migrate(hosts, storage=False)
    disk(hosts, "hv3").parent.mkdir(parents=True)
    disk(hosts, "hv3").touch()
    with pytest.raises(ControlError, match="already has a file"):
        migrate(hosts)
    assert migrate(hosts, storage=False)["bytes_qemu"]["nbd"] == 0
    assert disk(hosts, "hv1").exists()


def test_a_failure_after_the_stop_leaves_nothing(make: Callable[..., Hosts]) -> None:
    hosts = make("late")
    with pytest.raises(ControlError, match="unable to connect") as caught:
        migrate(hosts)
    assert caught.value.code == "failed"
    assert not disk(hosts, "hv3").exists() and disk(hosts, "hv1").exists()
    assert not any(act[0] == "place" for act in hosts.acts)
    assert hosts.acts.count(("close", "hv1")) == hosts.acts.count(("close", "hv3")) == 1


def test_the_user_cancels(make: Callable[..., Hosts]) -> None:
    hosts = make("cancel")
    transport = baseline.TcpTransport()
    assert transport.cancel("vm1") is None
    told: list[bool | None] = []

    def on_event(event: dict[str, Any]) -> None:
        if event.get("phase") == "precopy" and event["event"] == "phase":
            told.append(transport.cancel("vm1"))

    with pytest.raises(ControlError) as caught:
        transport.migrate(hosts, "vm1", "hv1", "hv3", True, {}, on_event)  # type: ignore[arg-type]
    assert (caught.value.code, told) == ("cancelled", [True])
    assert not disk(hosts, "hv3").exists() and hosts.at == "hv1"
    assert transport.cancel("vm1") is None


def test_the_user_cancels_before_libvirt_is_asked(make: Callable[..., Hosts]) -> None:
    """It was told "too late", or libvirt had no job yet to be aborted, and the guest moved."""
    hosts = make()
    transport = baseline.TcpTransport()
    told: list[bool | None] = []

    def on_event(event: dict[str, Any]) -> None:
        if event.get("phase") == "storage":
            told.append(transport.cancel("vm1"))

    with pytest.raises(ControlError) as caught:
        transport.migrate(hosts, "vm1", "hv1", "hv3", True, {}, on_event)  # type: ignore[arg-type]
    assert (caught.value.code, told) == ("cancelled", [True])
    assert not disk(hosts, "hv3").exists() and hosts.at == "hv1" and hosts.migrated == {}


def test_what_makes_no_sense_is_refused(make: Callable[..., Hosts]) -> None:
    hosts = make()
    for wanted in ({"congestion": {"ram": "bbr"}}, {"timeout": 5}, {"wings": 2}):
        with pytest.raises(ControlError) as caught:
            migrate(hosts, **wanted)
        assert caught.value.code == "EUSAGE"
    hosts.plan = dataclasses.replace(PLAN, baseline=None)
    with pytest.raises(ControlError, match="baseline: ip") as caught:
        migrate(hosts)
    assert caught.value.code == "EUSAGE"
    baseline.TcpTransport().follow(hosts, "vm1", "hv1", "hv2")  # type: ignore[arg-type]
    assert not any(act[0] in ("place", "forget") for act in hosts.acts)


@pytest.mark.parametrize(("to", "asked"), [("hv3", []), ("hv2", ["10.3.1.1"])])
def test_ipv4_follows_a_guest_whatever_moved_it(
    make: Callable[..., Hosts], monkeypatch: pytest.MonkeyPatch, to: str, asked: list[str]
) -> None:
    hosts, told = make(), []

    class Agent:
        def __init__(self, locate: Callable[[], Path]) -> None:
            assert str(locate()).endswith("/run/xtb/agent-vm1.sock")

        def request(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
            told.append(message["address"])
            return {}

    monkeypatch.setattr(baseline, "AgentClient", Agent)
    baseline.TcpTransport().follow(hosts, "vm1", "hv1", to)  # type: ignore[arg-type]
    assert told == asked
    assert hosts.acts == [("place", to)] + ([("forget", "hv1")] if asked else [])


def test_the_cap_reaches_libvirt() -> None:
    told = tcptransport.tcp_parameters(REQUEST, "10.0.0.1", Options(bandwidth=7))
    assert told[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == 7
    assert libvirt.VIR_MIGRATE_PARAM_DISKS_URI not in told
