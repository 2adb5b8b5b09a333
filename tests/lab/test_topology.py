"""Topology files: every error of a file in one run, each at its place, with advice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiatb.errors import InvalidFileError
from xiatb.lab.load import load, loads

TOPOLOGIES = Path(__file__).parents[2] / "topologies"

GOOD = """
name: t
nodes:
  r1: {kind: router, ad: ad1}
  h1: {kind: host}
links:
  - r1 -- h1
"""


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidFileError) as caught:
        loads(text, "f.yaml")
    return caught.value.problems


def with_line(line: str, after: str = "links:") -> str:
    return GOOD.replace(after, f"{after}\n{line}")


@pytest.mark.parametrize("file", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_topologies_are_valid(file: Path) -> None:
    assert load(file).file.nodes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "sed: 1\n", ["f.yaml:8:1: sed: unknown key", "did you mean 'seed'?"]),
        (
            with_line("  - {endpoints: [r1, h1], delay: 10sm}"),
            ["f.yaml:7:34: links[0].delay: '10sm' is not a duration (did you mean '10ms'?)"],
        ),
        (
            with_line("  - r1 -- h2"),
            ["f.yaml:7:5: links[0].endpoints[1]: no node named 'h2'", "known: h1, r1"],
        ),
        (with_line("  h1: {kind: host}", "nodes:"), ["f.yaml:6:3: nodes.h1: name used twice", "on line 4"]),
        (
            GOOD + "guests:\n  vm1: {on: h1}\n",
            ["f.yaml:9:13: guests.vm1.on: 'h1' is a host, not a hypervisor", "kind: hypervisor at nodes.h1"],
        ),
        (GOOD + "guests:\n  h1: {on: r1}\n", ["f.yaml:9:3: guests.h1: name used twice"]),
        (with_line("  r2: {kind: router}", "nodes:"), ["nodes.r2: a router needs an ad"]),
        (with_line("  h2: {kind: host}", "nodes:"), ["f.yaml:4:3: nodes.h2: has no link"]),
        (
            with_line("  - r1:1 -- h1\n  - r1:eth1 -- h1"),
            ["f.yaml:8:5: links[1].endpoints[0]: two links on port"],
        ),
        (with_line("  - r1 - h1"), ["'r1 - h1' is not a link", "NODE -- NODE"]),
        (with_line("  - r1 -- r1"), ["both ends are 'r1'"]),
        (with_line("  - {endpoints: [r1, h1], mtu: 90}"), ["90 is out of range: 1280 to 65000"]),
        (with_line("  - {endpoints: [r1, h1], loss: 101%}"), ["out of range: 0% to 100%"]),
        (
            with_line("  - {endpoints: [r1, h1], jitter: 2ms, delay: 1ms}"),
            ["links[0].jitter: 2ms is out of range: 0 to the delay (1ms)"],
        ),
        (with_line("  r2: {kind: rooter, ad: a}", "nodes:"), ["did you mean 'router'?"]),
        (with_line("  r2: {ad: a}", "nodes:"), ["nodes.r2: kind is missing"]),
        (with_line("  R2: {kind: host}", "nodes:"), ["f.yaml:4:3: nodes.R2: 'R2' is not a name"]),
        (with_line("  h2: {kind: host, ad: ad2}\n", "nodes:") + "  - r1 -- h2\n", ["no router of 'ad2'"]),
        ("", ["the file is empty"]),
        ("name: [", ["not YAML"]),
        ("- 1", ["is not a mapping"]),
        ("name: t", ["nodes is missing"]),
    ],
)
def test_one_error_is_placed_and_explained(text: str, expected: list[str]) -> None:
    report = "\n".join(problems(text))
    for part in expected:
        assert part in report


def test_all_errors_come_in_one_run_in_file_order() -> None:
    text = """\
name: t
nods: {}
nodes:
  r1: {kind: router, ad: ad1, clik: x}
  hv1: {kind: hypervisor, ad: ad2}
  h1: {kind: host}
  h1: {kind: host}
guests:
  vm1: {on: h1, memory: 1M}
links:
  - {endpoints: [r1, hv2], rate: fast, delay: 5xs}
  - h1 -- r1
"""
    found = problems(text)
    assert len(found) == 9
    lines = [int(problem.split(":")[1]) for problem in found]
    assert lines == sorted(lines) == [2, 4, 5, 7, 9, 9, 11, 11, 11]


def test_keys_that_yaml_takes_for_booleans_are_text() -> None:
    text = (
        GOOD.replace("h1: {kind: host}", "h1: {kind: hypervisor, ad: ad1}") + "guests:\n  vm1:\n    on: h1\n"
    )
    assert loads(text).guests["vm1"].on == "h1"


def test_unreadable_files_are_invalid_files(tmp_path: Path) -> None:
    for name, content in (
        ("none.yaml", None),
        ("latin.yaml", b"name: \xff"),
        ("bomb.yaml", _bomb().encode()),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidFileError):
            load(tmp_path / name)


def _bomb() -> str:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for level in range(1, 9):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines)


@given(st.text(alphabet="nodesliknk: {}[]-,\n\"'&*%!1ab", max_size=120))
def test_hostile_text_never_raises_anything_else(text: str) -> None:
    try:
        loads(text)
    except InvalidFileError as error:
        assert error.exit_code == 2


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["on", "kind", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["name", "nodes", "links", "guests", "ads", "defaults", "seed"]), _VALUES, max_size=6
    )
)
def test_any_structure_is_read_or_refused(data: dict[str, object]) -> None:
    import json

    try:
        loads(json.dumps(data))
    except InvalidFileError as error:
        assert error.problems
