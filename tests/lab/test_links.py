"""Which commands a change of a link becomes on a host with netem (recorded: this kernel may have none)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xiatb.errors import HostNotAbleError
from xiatb.lab import links as links_module
from xiatb.lab import netlink, wire
from xiatb.lab.context import Context
from xiatb.lab.journal import Journal
from xiatb.lab.linkops import LinkOperations
from xiatb.lab.links import Links
from xiatb.lab.load import load
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Impairment
from xiatb.lab.planner import make_plan
from xiatb.lab.process import ProcessId
from xiatb.lab.runner import CommandError, RecordingRunner, Result
from xiatb.lab.state import LabState, LinkState

MS = 10**6
TOPOLOGY = """
name: x
nodes: {a: {kind: host}, b: {kind: router, ad: ad1}}
links: [{endpoints: [a, b], mtu: 9000}]
"""
MIDDLE = ("nsenter", "--net=/run/netns/xiatb-x-all.links", "--")


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(wire, "can_forward", lambda: True)
    (tmp_path / "x.yaml").write_text(TOPOLOGY)
    plan = make_plan(load(tmp_path / "x.yaml"))
    paths = LabPaths("x", tmp_path, tmp_path)
    paths.root.mkdir()
    me = ProcessId(1, 1)
    state = LabState("x", "id", "boot", me, "now", plan.topology)
    state.links[plan.links[0].name] = LinkState(Impairment(), Impairment(), "none", middle=True)
    return Context(plan, paths, Journal(paths.journal), state, RecordingRunner(), lambda _: None)


def calls(context: Context) -> list[str]:
    """tc commands since the last time, without probes."""
    runner = context.runner
    assert isinstance(runner, RecordingRunner)
    found = [" ".join(call) for call in runner.calls if "unshare" not in call and "show" not in call]
    runner.calls.clear()
    return found


def test_rates_are_at_the_ends_and_the_rest_is_in_the_middle(context: Context) -> None:
    link = context.plan.links[0]
    one = Impairment(rate=10**7, delay=20 * MS, jitter=MS, loss=5000, duplicate=100, reorder=1000)
    state = Links(context).change(link, one, Impairment())
    shape, netem = calls(context)
    assert shape == (
        "nsenter --net=/run/netns/xiatb-x-a -- tc qdisc replace dev eth0 root handle 1: tbf "
        "rate 10000000bit burst 16384 limit 262144"
    )
    assert netem == " ".join(MIDDLE) + (
        " tc qdisc replace dev l0b root handle 10: netem limit 1000 "
        "delay 20000us 1000us loss random 0.5% duplicate 0.01% reorder 0.1%"
    )
    assert (state.backend, state.forward, state.backward) == ("netem", one, Impairment())
    assert context.state.backends == {link.name: "netem", "rate": "tbf"}
    assert context.state.shaping_backend == "tbf+netem"


def test_backward_is_the_other_end_and_clearing_takes_away_what_was_there(context: Context) -> None:
    link, links = context.plan.links[0], Links(context)
    links.change(link, Impairment(), Impairment(rate=10**9, gemodel=(10_000, 200_000, 1_000_000, 0)))
    shape, netem = calls(context)
    assert "xiatb-x-b -- tc qdisc replace dev eth0" in shape
    assert "dev l0a root handle 10: netem" in netem
    assert netem.endswith("loss gemodel 1% 20% 100% 0%")
    links.change(link, Impairment(), Impairment())
    assert [call.partition("-- ")[2] for call in calls(context)] == [
        "tc qdisc del dev eth0 root",
        "tc qdisc del dev l0a root",
    ]
    assert context.state.backends == {link.name: "none"}
    assert context.state.shaping_backend == "none"


def test_a_rate_that_stays_is_not_touched(context: Context) -> None:
    operations = LinkOperations(context)
    operations.set("a", "b", {"rate": "10mbit"}, source="a")
    calls(context)
    operations.set("b", "a", {"delay": "1ms"})
    assert all("netem" in call for call in calls(context))
    shown = operations.show_all()[0]
    assert (shown["forward"]["set"], shown["backward"]["set"]) == (
        {"rate": "10mbit", "delay": "1ms", "queue": "256k"},
        {"delay": "1ms"},
    )


def test_a_failed_change_leaves_what_was_there(context: Context) -> None:
    operations = LinkOperations(context)
    operations.set("a", "b", {"rate": "10mbit"})
    assert isinstance(context.runner, RecordingRunner)
    context.runner.answers[(*MIDDLE, "tc", "qdisc", "replace", "dev", "l0a")] = Result((), 2, "", "no")
    with pytest.raises(CommandError):
        operations.set("a", "b", {"rate": "20mbit", "delay": "5ms"})
    shown = operations.show_all("a", "b")[0]
    assert shown["forward"]["set"] == shown["backward"]["set"] == {"rate": "10mbit", "queue": "256k"}
    assert "rate 10000000bit" in " ".join(calls(context)[-4:])


def test_a_link_without_a_middle_takes_a_rate_only(context: Context) -> None:
    context.state.links[context.plan.links[0].name].middle = False
    operations = LinkOperations(context)
    assert operations.set("a", "b", {"rate": "10mbit"})["forward"]["rate"] == 10**7
    with pytest.raises(HostNotAbleError, match="no middle") as caught:
        operations.set("a", "b", {"delay": "1ms"})
    assert "impairable" in caught.value.hint


def test_a_pulled_cable_is_the_middles_carrier(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    acts: list[tuple[str, str, str]] = []

    class Routes:
        def link_lookup(self, ifname: str) -> list[str]:
            return [ifname]

        def link(self, verb: str, *, index: Any, state: str) -> None:
            acts.append((verb, str(index), state))

    @contextlib.contextmanager
    def routes(_netns: Path) -> Iterator[Routes]:
        yield Routes()

    monkeypatch.setattr(netlink, "routes", routes)
    monkeypatch.setattr(netlink, "index_of", lambda socket_, name: name)
    monkeypatch.setattr(netlink, "tell_carrier", lambda netns, name: acts.append(("tell", netns.name, name)))
    operations = LinkOperations(context)
    assert operations.switch("a", "b", up=False)["state"] == "down"
    told = [("tell", "xiatb-x-a", "eth0"), ("tell", "xiatb-x-b", "eth0")]
    assert acts == [("set", "l0a", "down"), ("set", "l0b", "down"), *told]
    assert operations.switch("b", "a", up=True)["state"] == "up"


def test_middles_are_for_links_that_may_or_do_need_one(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:

    link = context.plan.links[0]
    bare = dataclasses.replace(link, impairable=False)
    delayed = dataclasses.replace(bare, forward=Impairment(delay=1))
    assert [links_module.has_middle(one) for one in (link, bare, delayed)] == [True, False, True]
    monkeypatch.setattr(wire, "can_forward", lambda: False)
    assert [links_module.has_middle(one) for one in (link, bare, delayed)] == [False, False, True]


def test_the_program_is_four_instructions() -> None:
    program = wire.redirect_program(7)
    assert program.hex() == "b401000007000000b40200000000000085000000170000009500000000000000"
