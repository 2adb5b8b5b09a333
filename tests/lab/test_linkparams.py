"""Parameters of links: what is taken, what is refused and with which words, and how changes merge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xiatb.errors import InvalidFileError, UsageError
from xiatb.lab.linkops import changed, direction, find_link, shown_link
from xiatb.lab.linkparams import PARAMETERS, LinkParameterError, contradictions, merge, parse, shown
from xiatb.lab.load import load
from xiatb.lab.plan import EndPlan, Impairment, LinkPlan, Plan
from xiatb.lab.planner import make_plan
from xiatb.lab.process import ProcessId
from xiatb.lab.state import LabState, LinkState

MS = 10**6
ALL = {
    "rate": "50mbit",
    "delay": "20ms",
    "jitter": "1ms",
    "loss": "0.5%",
    "burst": "5",
    "duplicate": "0.1%",
    "reorder": "1%",
    "queue": "64k",
}


def test_every_parameter_is_read_and_shown_the_same() -> None:
    one = merge(Impairment(), parse(ALL))
    assert one == Impairment(50_000_000, 20 * MS, MS, 5000, 5, None, 1000, 10_000, 65536)
    assert shown(one) == {name: ALL[name] for name in PARAMETERS if name != "gemodel"}
    assert merge(Impairment(), parse(shown(one))) == one
    bursty = merge(Impairment(), parse({"gemodel": "1% 20% 50% 0.1%"}))
    assert bursty.gemodel == (10_000, 200_000, 500_000, 1000)
    assert merge(Impairment(), parse(shown(bursty))) == bursty
    assert parse({"gemodel": "1%"})["gemodel"] == (10_000, 990_000, 1_000_000, 0)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rate", "1kbit", "8kbit to 100gbit"),
        ("rate", "-5mbit", "8kbit to 100gbit"),
        ("rate", "100mbps", "did you mean"),
        ("delay", "-3ms", "0 to 10s"),
        ("delay", "11s", "0 to 10s"),
        ("delay", "20", "no unit"),
        ("jitter", "nan", "not a duration"),
        ("loss", "101%", "0% to 100%"),
        ("loss", True, "not a percentage"),
        ("burst", "-1", "0 to 10000"),
        ("burst", "1e9", "0 to 10000"),
        ("gemodel", "1% 2% 3% 4% 5%", "one to four shares of 0% to 100%"),
        ("gemodel", "200%", "0% to 100%"),
        ("queue", "1", "no unit"),
        ("queue", "100G", "3kB to 1G"),
        ("speed", "1mbit", "unknown link parameter 'speed'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_range(name: str, value: object, words: str) -> None:
    with pytest.raises(LinkParameterError, match=words) as caught:
        parse({name: value})
    assert caught.value.exit_code == 2
    assert "rate (8kbit to 100gbit, or none)" in caught.value.hint


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize(
    "value",
    ["-1", "-1%", "-1ms", "-1kbit", "-3kB", "1e300", "9" * 400, "9" * 400 + "%", "nan%", "inf", "", "%", "½%"]
    + ["\0", None, [], {}, b"1", -1, float("nan"), float("inf"), 10**30],
)
def test_nothing_absurd_gets_through(name: str, value: object) -> None:
    with pytest.raises(LinkParameterError, match=f"^{name}: "):
        parse({name: value})


def test_every_bad_one_is_named_in_one_go() -> None:
    with pytest.raises(LinkParameterError) as caught:
        parse({"loss": "150%", "delay": "-1ms", "nope": 1})
    assert all(word in caught.value.message for word in ("loss: ", "delay: ", "'nope'"))


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (Impairment(delay=MS, jitter=2 * MS), r"jitter: 2ms is out of range: 0 to the delay \(1ms\)"),
        (Impairment(loss=900_000, burst=2), "loss: 90% is out of range with burst 2: 0% to 66.6666%"),
        (Impairment(reorder=1000), "set a delay"),
        (Impairment(loss=1, gemodel=(1, 1, 1, 1)), "one or the other"),
    ],
)
def test_contradictions_are_found(one: Impairment, words: str) -> None:
    (problem,) = contradictions(one)
    with pytest.raises(ValueError, match=words):
        raise ValueError(problem)


def test_changes_merge_and_a_loss_model_takes_the_others_place() -> None:
    one = merge(Impairment(delay=5 * MS), parse({"loss": "1%", "burst": "4"}))
    assert (one.delay, one.loss, one.burst) == (5 * MS, 10_000, 4)
    one = merge(one, parse({"gemodel": "1% 10%"}))
    assert (one.delay, one.loss, one.burst) == (5 * MS, 0, 0)
    assert merge(one, parse({"loss": "2%"})).gemodel is None
    assert merge(one, parse({"loss": "0"})).gemodel is not None
    assert merge(Impairment(rate=10**6), parse({"rate": "none"})).rate is None


def lab(*links: LinkPlan) -> LabState:
    me = ProcessId(1, 1)
    state = LabState("x", "id", "boot", me, "now", "file")
    for link in links:
        state.links[link.name] = LinkState(link.forward, link.backward, "none", middle=True)
    return state


LINK = LinkPlan(
    0, EndPlan("a", "eth0"), EndPlan("b", "eth1"), 1500, Impairment(delay=MS), Impairment(delay=2 * MS)
)


def test_one_direction_or_both_merged_or_replaced() -> None:
    state = lab(LINK)
    both = changed(LINK, state, {"loss": "1%"})
    assert [(one.delay, one.loss) for one in both.values()] == [(MS, 10_000), (2 * MS, 10_000)]
    one = changed(LINK, state, {"loss": "1%"}, source="b")
    assert one["forward"] == LINK.forward
    assert (one["backward"].delay, one["backward"].loss) == (2 * MS, 10_000)
    cleared = changed(LINK, state, {"loss": "1%"}, clear=True)
    assert set(cleared.values()) == {Impairment(loss=10_000)}
    with pytest.raises(LinkParameterError, match="0 to the delay"):
        changed(LINK, state, {"jitter": "1500us"})
    with pytest.raises(UsageError, match="'c' is no end"):
        direction(LINK, "c")


def test_links_are_found_by_either_end_and_doubts_are_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "[a -- b, a -- b, c -- b]")
    assert find_link(plan, "b", "c").name == "c:eth0--b:eth2"
    assert find_link(plan, "b:eth1", "a").index == 1
    with pytest.raises(UsageError, match="2 links between a and b"):
        find_link(plan, "a", "b")
    with pytest.raises(UsageError, match="no link between a and c") as caught:
        find_link(plan, "a", "c")
    assert "a:eth0--b:eth0" in caught.value.hint
    with pytest.raises(UsageError, match="no node named 'd'"):
        find_link(plan, "a", "d")


def test_state_tells_what_is_and_survives_its_file(tmp_path: Path) -> None:
    state = lab(LINK)
    state.links[LINK.name].up = False
    state.links[LINK.name].forward = Impairment(gemodel=(1, 2, 3, 4))
    state.save(tmp_path / "state.json")

    again = LabState.from_json(json.loads((tmp_path / "state.json").read_text()))
    assert again.links == state.links
    link = shown_link(LINK, again)
    assert (link["state"], link["forward"]["gemodel_ppm"], link["backward"]["delay_ns"]) == (
        "down", (1, 2, 3, 4), 2 * MS,
    )  # fmt: skip


def test_topologies_take_the_same_parameters(tmp_path: Path) -> None:
    text = "[{endpoints: [a, b], loss: 1%, burst: 3, backward: {gemodel: 1% 5%}, impairable: false}, c -- b]"
    first, second = plan_of(tmp_path, text).links
    assert (first.forward.loss, first.forward.burst, first.impairable) == (10_000, 3, False)
    assert (first.backward.loss, first.backward.gemodel) == (0, (10_000, 50_000, 1_000_000, 0))
    assert second.impairable
    with pytest.raises(InvalidFileError) as caught:
        plan_of(tmp_path, "[{endpoints: [a, b], delay: 1ms, jitter: 5ms}, c -- b]")
    (problem,) = caught.value.problems
    assert "x.yaml:3:" in problem
    assert "links[0].jitter: 5ms is out of range: 0 to the delay (1ms)" in problem


def plan_of(directory: Path, links: str) -> Plan:
    file = directory / "x.yaml"
    nodes = "{a: {kind: host}, b: {kind: router, ad: ad1}, c: {kind: host}}"
    file.write_text(f"name: x\nnodes: {nodes}\nlinks: {links}\n")
    return make_plan(load(file))
