"""The lab's side: finding the guest, refusals, the names file; and the verb's exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.migration.samples import HID, SIDS
from xiatb.cli import migrate as verb
from xiatb.errors import InterruptedByUserError, UsageError, XiatbError
from xiatb.lab.client import SocketGoneError
from xiatb.lab.paths import LabPaths
from xiatb.migration import manager
from xiatb.node.control_protocol import ControlError
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import behind, served
from xiatb.wire.xid import XID

AD1, AD2 = "AD:" + "1" * 40, "AD:" + "2" * 40
HOSTHID = "HID:" + "3" * 40


def plan() -> Any:
    def node(name: str, kind: str, ad: str) -> Any:
        return SimpleNamespace(
            name=name, kind=kind, ad=ad, hid=HOSTHID, migration_sid=str(SIDS[0]),
            at=lambda hid: DAG.host(XID.parse(ad), hid),
        )  # fmt: skip

    nodes = [node("hv1", "hypervisor", AD1), node("hv2", "hypervisor", AD2), node("r1", "router", AD1)]
    guest = SimpleNamespace(name="vm1", hid=HID, uuid="5eb568fa-6f36-4561-b6e9-b3fbcb2c6db0")
    return SimpleNamespace(
        lab="t",
        migration_policy="",
        nodes=nodes,
        guests=(guest,),
        kind=lambda *kinds: [one for one in nodes if one.kind in kinds],
        node=lambda name: next(one for one in nodes if one.name == name),
        guest=lambda name: guest,
        names={
            "vm1.t.xia": f"RE {AD1} {HID}",
            "echo.vm1.t.xia": f"RE ( {AD1} {HID} ) {SIDS[1]}",
            "hv1.t.xia": f"RE {AD1} {HOSTHID}",
        },
    )


def test_daemon_config_knows_the_other_hypervisors(tmp_path: Path) -> None:
    paths = LabPaths("t", run_root=tmp_path)
    made = manager.daemon_config(plan(), paths, plan().node("hv1"))
    assert sorted(made.peers) == ["hv2"]
    assert made.peers["hv2"].address == f"RE ( {AD2} {HOSTHID} ) {SIDS[0]}"
    assert made.socket == tmp_path / "t" / "nodes" / "hv1" / "migrated.sock"


def test_names_follow_the_guest(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_text("".join(f"{name} {dag}\n" for name, dag in plan().names.items()))
    manager.relocate_names(path, plan(), "vm1", plan().node("hv2"))
    assert path.read_text().splitlines() == [
        f"vm1.t.xia RE {AD2} {HID}",
        f"echo.vm1.t.xia RE ( {AD2} {HID} ) {SIDS[1]}",
        f"hv1.t.xia RE {AD1} {HOSTHID}",
    ]


def test_names_and_daemons_across_an_ip_core_are_behind_their_4ids(tmp_path: Path) -> None:
    host, path = plan().node("hv2"), tmp_path / "names"
    near = host.at
    host.at = lambda hid: behind(XID.parse("IP:192.0.2.7"), near(hid))
    path.write_text("".join(f"{name} {dag}\n" for name, dag in plan().names.items()))
    manager.relocate_names(path, plan(), "vm1", host)
    ip = XID.parse("IP:192.0.2.7")
    assert path.read_text().splitlines()[:2] == [
        f"vm1.t.xia RE ( {ip} ) {AD2} {HID}",
        f"echo.vm1.t.xia {served(behind(ip, near(XID.parse(HID))), SIDS[1])}",
    ]
    assert "IP:" in manager.service_dag(host)


def test_a_guest_has_moved_though_its_names_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told as "not migrated (EIO)": the file system of /run may be full."""
    said: list[str] = []
    context: Any = SimpleNamespace(plan=plan(), paths=LabPaths("t", run_root=tmp_path), progress=said.append)
    fake = FakeManager({"hv1": "running", "hv2": "absent"})
    monkeypatch.setattr(fake, "_run", lambda *_: {"guest": "vm1"})
    monkeypatch.setattr(fake._tcp, "follow", lambda *_: None)
    result = fake.migrate(context, "vm1", "hv2", False, lambda event: None)
    assert result["guest"] == "vm1"
    assert said[0].startswith("the names of vm1 are still those of where it was: [Errno 2]")


class FakeManager(manager.MigrationManager):
    """Answers of daemons from a table."""

    def __init__(self, states: dict[str, str]) -> None:
        super().__init__()
        self.states = states

    def _ask(self, context: Any, node: str, op: str, **fields: Any) -> dict[str, Any]:
        if node not in self.states:
            raise SocketGoneError(f"{node}: gone")
        return {"states": dict.fromkeys(fields["guests"], self.states[node])}


@pytest.mark.parametrize(
    ("guest", "to", "states", "code", "words"),
    [
        ("vm9", "hv2", {}, "EUSAGE", "no guest named 'vm9'; guests: vm1"),
        ("vm1", "r1", {}, "EUSAGE", "no hypervisor host named 'r1'; hosts: hv1, hv2"),
        ("vm1", "hv1", {"hv1": "running", "hv2": "absent"}, "EUSAGE", "already on hv1"),
        ("vm1", "hv2", {"hv1": "off", "hv2": "absent"}, "not-running", "hv1: off, hv2: absent"),
        ("vm1", "hv2", {}, "not-running", "no daemon answers"),
    ],
)
def test_requests_that_make_no_sense(
    guest: str, to: str, states: dict[str, str], code: str, words: str
) -> None:
    context: Any = SimpleNamespace(plan=plan(), paths=LabPaths("t"))
    with pytest.raises(ControlError, match=words) as caught:
        FakeManager(states).migrate(context, guest, to, True, lambda event: None)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("states", "hint"),
    [
        ({"hv1": "absent", "hv2": "off"}, "start the guest first: xiatb exec hv2 -- virsh start vm1"),
        ({"hv1": "paused", "hv2": "off"}, "let it run first: xiatb exec hv1 -- virsh resume vm1"),
        ({"hv1": "absent", "hv2": "absent"}, ""),
    ],
)
def test_who_migrates_a_guest_that_does_not_run_is_told_what_to_do(states: dict[str, str], hint: str) -> None:
    context: Any = SimpleNamespace(plan=plan(), paths=LabPaths("t"))
    fake = FakeManager(states)
    for ask in (lambda: fake.migrate(context, "vm1", "hv2", True, lambda event: None),
                lambda: fake.plan(context, "vm1", "hv2", True, {})):  # fmt: skip
        with pytest.raises(ControlError) as caught:
            ask()
        assert (caught.value.code, caught.value.hint) == ("not-running", hint)


def test_meaning_of_errors() -> None:
    for code in ("EUSAGE", "ENOSYS"):
        assert isinstance(verb._meaning(ControlError(code, "x"), cancelled=False), UsageError)
    assert isinstance(verb._meaning(ControlError("cancelled", "x"), cancelled=True), InterruptedByUserError)
    other = verb._meaning(ControlError("no-room", "full"), cancelled=False)
    assert (type(other), other.exit_code) == (XiatbError, 1)
    assert "no-room" in other.message


def test_follow_gives_the_result() -> None:
    def events() -> Iterator[dict[str, Any]]:
        yield {"event": "phase", "phase": "storage"}
        yield {
            "event": "progress",
            "phase": "storage",
            "total": 10,
            "remaining": 5,
            "rate": 1 << 20,
            "pass": 0,
        }
        yield {"event": "phase", "phase": "precopy"}
        yield {"event": "progress", "phase": "precopy", "total": 0, "remaining": 0, "rate": 0, "pass": 3}
        yield {"event": "result", "guest": "vm1", "total_ms": 5.0}

    assert verb.follow(events(), quiet=True) == {"guest": "vm1", "total_ms": 5.0}
    assert verb.follow(events(), quiet=False) == {"guest": "vm1", "total_ms": 5.0}


def test_verb_shows_its_options() -> None:
    done = CliRunner().invoke(verb.command, ["--help"])
    assert done.exit_code == 0
    assert all(option in done.output for option in ("--to", "--with-storage", "--lab", "--output"))


def test_result_table(capsys: pytest.CaptureFixture[str]) -> None:
    verb._tell({"guest": "vm1", "from": "hv1", "to": "hv2", "total_ms": 1234.5, "downtime_ms": None,
                "passes": [1, 2], "bytes_qemu": {"ram": 1 << 20}, "note": "careful"})  # fmt: skip
    shown = capsys.readouterr()
    assert "vm1 moved from hv1 to hv2" in shown.out
    assert "1234 ms" in shown.out
    assert "not known" in shown.out
    assert "careful" in shown.err


class DiedManager(FakeManager):
    """The source's daemon has died and another one has settled what it left."""

    def _ask(self, context: Any, node: str, op: str, **fields: Any) -> dict[str, Any]:
        return {"outgoing": []} if op == "status" else super()._ask(context, node, op, **fields)


def test_the_user_of_a_daemon_that_died_is_told_what_became_of_the_guest() -> None:
    context: Any = SimpleNamespace(plan=plan(), paths=LabPaths("t"))
    here = DiedManager({"hv1": "running", "hv2": "absent"})
    with pytest.raises(ControlError, match="died and was started again") as caught:
        here._after_death(context, "vm1", "hv1", "hv2", lambda event: None)
    assert caught.value.code == "lost"
    assert caught.value.hint.startswith("vm1 runs on hv1 as before")
    there = DiedManager({"hv1": "absent", "hv2": "running"})
    result = there._after_death(context, "vm1", "hv1", "hv2", lambda event: None)
    assert (result["guest"], result["to"]) == ("vm1", "hv2")
    assert "no measurements" in result["note"]


class BusyManager(FakeManager):
    """One daemon moves two guests, one of which can be cancelled; the other daemon is gone."""

    def __init__(self) -> None:
        super().__init__({})
        self.moving = {"vm1": "transfer", "vm2": "postcopy"}
        self.cancelled: list[str] = []

    def _ask(self, context: Any, node: str, op: str, **fields: Any) -> dict[str, Any]:
        if node != "hv1":
            raise SocketGoneError(f"{node}: gone")
        if op == "status":
            return {"outgoing": [{"guest": g, "job": "1", "state": s} for g, s in self.moving.items()]}
        self.cancelled.append(fields["guest"])
        if fields["guest"] == "vm1":
            del self.moving["vm1"]
        return {"cancelled": fields["guest"] == "vm1"}


def test_a_lab_that_ends_cancels_what_is_under_way_while_both_ends_are_there() -> None:
    """Daemons that were stopped at once left libvirt in the midst of it, and `down` waited 45 s for it."""
    one = BusyManager()
    context: Any = SimpleNamespace(plan=plan(), paths=LabPaths("t"), node_pid=lambda node: 0)
    one.stop(context)
    assert one.cancelled[:2] == ["vm1", "vm2"]
    assert list(one.moving) == ["vm2"], "which cannot be cancelled any more, and is not waited for"


def test_only_an_own_daemon_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = SimpleNamespace(plan=plan(), paths=LabPaths("t"), progress=lambda words: None)
    one, started = manager.MigrationManager(), []
    monkeypatch.setattr(one, "start_node", lambda context, node: started.append(node))
    dead, alive = SimpleNamespace(alive=lambda: False), SimpleNamespace(alive=lambda: True)
    one._daemons.update({"hv1": dead, "hv2": alive})  # type: ignore[dict-item]
    one.ended(context, "libvirtd hv1")
    assert started == []
    one.ended(context, "migrated hv1")
    assert started == ["hv1"]
