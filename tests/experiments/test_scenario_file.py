"""Scenario files: every error of one in one go, variables, checks, seeds. No lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xiatb.cli.main import main
from xiatb.errors import CheckFailedError, InvalidFileError, UsageError, XiatbError
from xiatb.experiments.scenario.actions import Actions
from xiatb.experiments.scenario.checks import Check, result_at
from xiatb.experiments.scenario.reading import Scenario, read_scenario
from xiatb.experiments.scenario.running import Outcome, expectations, verdict

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
HEAD = f"topology: {TOPOLOGIES / 'migration.yaml'}\n"


def scenario(tmp_path: Path, text: str, *settings: str, head: str = HEAD) -> Scenario:
    path = tmp_path / "s.yaml"
    path.write_text(head + text)
    return read_scenario(path, settings)


def problems(tmp_path: Path, text: str, head: str = HEAD) -> list[str]:
    with pytest.raises(InvalidFileError) as caught:
        scenario(tmp_path, text, head=head)
    assert caught.value.exit_code == 2
    return [problem.split("s.yaml:", 1)[1] for problem in caught.value.problems]


def test_every_error_is_told_at_once_with_its_place_and_a_hint(tmp_path: Path) -> None:
    text = """steps:
  - at: 3 parsecs
    ping: {from: client, to: nobody, count: 0}
  - link_set: {link: r1 -- r9, delay: 99s}
    after: later
  - name: x
    link_up: [r1, r2]
    capture: {on: r1, port: eth7}
  - name: x
    exec: {on: client, comand: [ls]}
  - migrate: {guest: vm1, to: hv9}
    expect: {downtime_ms: < much}
  - {}
  - wait: {for: rain}
sede: 1
"""
    found = "\n".join(problems(tmp_path, text))
    for words in (
        "3:9: steps[0].at: '3 parsecs'",
        "4:45: steps[0].ping.count: 0 is out of range: 1 to 1000000",
        "5:39: steps[1].link_set.delay: '99s' is out of range: 0 to 10s",
        "8:14: steps[2].link_up: ['r1', 'r2'] is not A -- B",
        "10:11: steps[3].name: 'x' is used twice",
        "11:24: steps[3].exec.comand: unknown key\n    hint: did you mean 'command'?",
        "13:27: steps[4].expect.downtime_ms: '< much': 'much' is no number",
        "14:5: steps[5]: nothing to do",
        "15:17: steps[6].wait.for: 'rain' is not one of joined, converged, guests",
        "16:1: sede: unknown key\n    hint: did you mean 'seed'?",
    ):
        assert words in found, found


def test_what_the_topology_lacks_and_what_steps_cannot_mean(tmp_path: Path) -> None:
    text = """steps:
  - {name: server, exec: {on: r1, command: [sleep, 9], background: true}}
  - ping: {from: clint, to: nobody}
  - link_set: {link: r1 -- r9, loss: 1%}
  - link_set: {link: r1 -- r2, from: hv1, loss: 1%}
  - {capture: {on: r1, port: eth7}, at: 1s, after: server/start}
  - {migrate: {guest: vm1, to: hv9}}
  - {migrate: {guest: vm1}}
  - {after: server, link_up: r1 -- r2}
  - {after: later, link_up: r1 -- r2}
  - {after: server/boom, link_up: r1 -- r2}
  - {link_up: r1 -- r2, link_down: r1 -- r2}
  - {}
  - {capture_stop: nothing}
  - {ping: {from: client, to: r1}, expect: {receive: 4}}
"""
    found = problems(tmp_path, text)
    expected = [
        (4, "ping.from: there is no 'clint' in migration\n    hint: did you mean 'client'?"),
        (4, "ping.to: no node, guest or name 'nobody'"),
        (5, "link_set.link: no node named 'r9'"),
        (6, "link_set.from: 'hv1' is no end of"),
        (7, "after: at and after in one step"),
        (7, "capture.port: r1 has no port 'eth7'"),
        (8, "migrate.to: there is no 'hv9'"),
        (9, "migrate: to is missing"),
        (10, "after: server runs until the end of the scenario"),
        (11, "after: no earlier step is called 'later'"),
        (12, "after: server has no event 'boom'"),
        (13, "link_down and link_up in one step"),
        (14, "nothing to do"),
        (15, "capture_stop: no capture is called 'nothing'"),
        (16, "expect.receive: ping gives no 'receive'\n    hint: did you mean 'received'?"),
    ]
    for line, words in expected:
        assert any(one.startswith(f"{line}:") and words in one for one in found), (line, words, found)
    assert len(found) == len(expected), found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "steps is missing"),
        ("steps: []\n", "at least 1 item"),
        ("steps: 3\n", "valid list"),
        ("steps: [3]\n", "3 is not a mapping"),
        ("steps: [{ping: 3}]\n", "3 is not a mapping"),
        ("variables: 3\nsteps: [{link_up: r1 -- r2}]\n", "not a mapping"),
        ("variables:\nsteps: [{link_up: r1 -- $x}]\n", "a lone $"),
        ("steps: [{link_up: 'r1 -- ${x}'}]\n", "no variable 'x'"),
        ("steps: [{exec: {on: r1, command: ls}}]\n", "valid list"),
        ("steps: [{link_set: {link: r1 -- r2, speed: 3}}]\n", "unknown key"),
        ("repeat: 0\nsteps: [{link_up: r1 -- r2}]\n", "repeat: 0 is out of range: 1 to 1000"),
    ],
)
def test_odd_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in "\n".join(problems(tmp_path, text))


def test_a_topology_with_errors_is_told_of_in_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("name: x\nnodes: {h1: {kind: horst}}\n")
    (told,) = problems(tmp_path, "steps: [{link_up: a -- b}]\n", head="topology: t.yaml\n")
    assert told.startswith("1:11: topology: ") and "t.yaml:2:20: nodes.h1.kind: 'horst' is not one of" in told
    (told,) = problems(tmp_path, "steps: [{link_up: a -- b}]\n", head="topology: none.yaml\n")
    assert "No such file" in told


def test_variables_are_put_in_with_their_types_and_set_from_outside(tmp_path: Path) -> None:
    text = """variables: {delay: 20ms, count: 3, who: client, share: 0.5%}
steps:
  - link_set: {link: r1 -- r2, delay: "${delay}", loss: "${share}"}
  - ping: {from: "${who}", to: r1, count: "${count}"}
  - exec: {on: r1, command: [echo, "$${count} is ${count}", 7]}
"""
    one = scenario(tmp_path, text)
    assert one.file.steps[0].link_set.delay == "20ms"  # type: ignore[union-attr]
    ping, program = one.file.steps[1].ping, one.file.steps[2].exec
    assert ping is not None and (ping.count, ping.source) == (3, "client")
    assert program is not None and program.command == ["echo", "${count} is 3", "7"]
    other = scenario(tmp_path, text, "count=5", "delay=1ms")
    assert other.file.steps[1].ping.count == 5 and other.variables["delay"] == "1ms"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="no variable 'cuont'") as caught:
        scenario(tmp_path, text, "cuont=5")
    assert caught.value.hint == "did you mean 'count'?"
    with pytest.raises(UsageError, match="not NAME=VALUE"):
        scenario(tmp_path, text, "count")
    with pytest.raises(InvalidFileError):
        scenario(tmp_path, text, "count=many")


def test_each_run_has_the_next_seed(tmp_path: Path) -> None:
    steps = "steps: [{link_up: r1 -- r2}]\n"
    one = scenario(tmp_path, f"seed: 7\nname: it\n{steps}")
    assert [one.plan(run).seed for run in range(3)] == [7, 8, 9]
    assert one.plan(1, seed=100, lab="other").seed == 101 and one.plan(0, lab="other").lab == "other"
    assert one.name == "it" and scenario(tmp_path, steps).name == "s"
    assert {node.data_plane for node in one.plan(0, data_plane="click").nodes} == {"click"}


@pytest.mark.parametrize(
    ("written", "good", "bad"),
    [
        (">= 3", [3, 3.5], [2, None, "4", "x"]),
        ("< 0.5", [0, -1], [0.5]),
        ("!= 0", [1, "x"], [0, None]),
        (3, [3, "3"], [4]),
        (True, [True, "True"], [False]),
        ("up", ["up", "up\n"], ["down"]),
        ("contains ab", ["xaby"], ["xa"]),
        ("matches ^a.c$", ["abc"], ["abcd"]),
    ],
)
def test_checks(written: object, good: list[Any], bad: list[Any]) -> None:
    check = Check.parse(written)
    assert all(check.holds(one) for one in good)
    assert not any(check.holds(one) for one in bad)


@pytest.mark.parametrize("written", [None, [1], {}, "> x", "matches ("])
def test_checks_that_cannot_be(written: object) -> None:
    with pytest.raises(ValueError, match="nothing to compare|no number|no regular"):
        Check.parse(written)


def test_results_are_found_by_dotted_paths() -> None:
    assert result_at({"a": {"b": 3}}, "a.b") == 3
    assert result_at({"a": 1}, "a.b") is None and result_at({}, "a") is None


def test_programs_are_expected_to_end_with_0(tmp_path: Path) -> None:
    text = """steps:
  - exec: {on: r1, command: [ls]}
  - {exec: {on: r1, command: [ls]}, expect: {returncode: "!= 0"}}
  - exec: {on: r1, command: [ls], background: true}
"""
    steps = scenario(tmp_path, text).file.steps
    assert [{key: check.text for key, check in expectations(step).items()} for step in steps] == [
        {"returncode": "0"}, {"returncode": "!= 0"}, {},
    ]  # fmt: skip


def test_an_error_counts_more_than_checks() -> None:
    failed, broken = Outcome("x", 1, failures=["a: b"]), Outcome("x", 2, error=XiatbError("no"))
    assert verdict([Outcome("x", 1)]) is None
    assert isinstance(verdict([Outcome("x", 1), failed]), CheckFailedError)
    assert verdict([failed, broken]) is broken.error


def test_parameters_of_a_migration_are_passed_on_and_its_phases_are_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Client:
        def __init__(self, lab: str) -> None:
            asked.append(lab)

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

        def stream(self, op: str, *, params: dict[str, Any]) -> Any:
            asked.append((op, params))
            yield {"event": "phase", "phase": "precopy", "id": 1}
            yield {"event": "progress", "remaining": 3}
            yield {"event": "result", "downtime_ms": 40.0}

    monkeypatch.setattr("xiatb.experiments.scenario.actions.LabClient", Client)
    text = """steps:
  - {name: move, migrate: {guest: vm1, to: hv2, storage: true, mode: postcopy}}
  - {after: move/precopy, link_set: {link: r1 -- r2, loss: 1%}}
"""
    one = scenario(tmp_path, text)
    told: list[str] = []
    actions = Actions(one.plan(0), tmp_path)
    results = actions.perform("move", one.file.steps[0], lambda event, **more: told.append(event))
    assert results == {"downtime_ms": 40.0} and told == ["start", "precopy"]
    parameters = {"guest": "vm1", "to": "hv2", "storage": True, "mode": "postcopy"}
    assert asked == ["migration", ("migrate", parameters)]


def test_check_reads_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "steps: [{link_up: r1 -- r2}]\n")
    assert main(["run", str(path), "--check"]) == 0
    assert "1 steps in lab migration, ok" in capsys.readouterr().out
    path.write_text(HEAD + "steps: [{link_up: r1 -- r9}]\n")
    assert main(["run", str(path), "--check"]) == 2
    assert "s.yaml:2:19: steps[0].link_up: no node named 'r9'" in capsys.readouterr().err
    assert main(["run", str(path), "--keep", "--repeat", "2"]) == 2
