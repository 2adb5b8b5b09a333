"""The command line without a lab: verbs, exit codes, output formats."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click
import pytest

from tests.cli.commands import parse
from xiatb.cli.main import Verbs, cli, main

ROOT = Path(__file__).parents[2]
MIGRATION = str(ROOT / "topologies" / "migration.yaml")
VERBS = {
    "up", "down", "status", "list", "exec", "shell", "ping", "capture", "wait", "validate", "plan", "inspect",
    "logs", "completion", "version", "migrate", "demo", "click", "elements", "image", "names",
}  # fmt: skip


def visible() -> list[str]:
    assert isinstance(cli, Verbs)
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return [name for name, command in commands.items() if command is not None and not command.hidden]


def test_all_verbs_are_found_and_the_supervisor_is_hidden() -> None:
    assert set(visible()) >= VERBS
    assert "supervise" not in visible()


def commands(verb: str) -> list[tuple[list[str], click.Command]]:
    """A verb and its sub-verbs: the words that call each, and the command."""
    assert isinstance(cli, Verbs)
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    below = command.commands if isinstance(command, click.Group) else {}
    return [([verb], command), *(([verb, name], one) for name, one in below.items())]


@pytest.mark.parametrize("verb", visible())
def test_every_verb_has_a_page_that_tells_of_all_options(verb: str) -> None:
    page = (ROOT / "docs" / "cli" / f"{verb}.md").read_text()
    assert page.startswith(f"# xiatb {verb}\n")
    for words, command in commands(verb):
        for option in (option for one in command.params for option in one.opts if option.startswith("--")):
            assert option in page, f"docs/cli/{verb}.md does not tell of {option} of {' '.join(words)}"


def test_no_page_is_left_of_a_verb_that_is_gone() -> None:
    assert {page.stem for page in (ROOT / "docs" / "cli").glob("*.md")} == set(visible())


@pytest.mark.parametrize("verb", visible())
def test_every_verb_has_help_with_an_example_that_parses(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, _ in commands(verb):
        assert main([*words, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        example = re.search(rf"Example: [^:]*?(xiatb {verb}.*?)(?:\)\")? (?:Options|Commands):", shown)
        assert example, f"xiatb {' '.join(words)} --help shows no example"
        parse(example[1])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["stats"], 2, "Did you mean 'status'?"),
        (["down", "no-such-lab"], 5, "no such lab: no-such-lab"),
        (["status", "no-such-lab"], 5, "no such lab"),
        (["exec", "-l", "no-such-lab", "h1", "--", "true"], 5, "no such lab"),
        (["ping", "-l", "no-such-lab", "a", "b"], 5, "no such lab"),
        (["link", "show", "-l", "no-such-lab"], 5, "no such lab"),
        (["link", "set", "a", "b"], 2, "nothing to set"),
        (["validate", "/no/such/file.yaml"], 2, "No such file"),
        (["up", "/no/such/file.yaml"], 2, "No such file"),
        (["plan", MIGRATION, "-n", "Bad Name"], 2, "is not a name"),
        (["plan", MIGRATION, "-t", MIGRATION], 2, "given twice"),
        (["down", "a", "-l", "b"], 2, "given twice"),
        (["baseline", MIGRATION], 2, "no IPv4 beside XIA"),
        (["migrate", "a", "--to", "b", "--plan", "--transport", "tcp"], 2, "for migrations over XIA"),
    ],
)
def test_exit_codes(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_validate_reports_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: x\nnodes:\n  r1: {kind: router}\n  r1: {kind: host}\nlink: []\n")
    assert main(["validate", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == f"{file}:3:3: nodes.r1: a router needs an ad"
    assert f"{file}:4:3: nodes.r1: name used twice" in captured.err
    assert f"{file}:5:1: link: unknown key" in captured.err
    assert captured.err.splitlines()[-1].endswith("3 errors")
    assert main(["validate", str(file), "-o", "json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["valid"], len(told["problems"])) == (False, 3)


def test_validate_and_plan_say_what_is_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", MIGRATION]) == 0
    assert "5 nodes, 4 links, 1 guests, 2 ads" in capsys.readouterr().out
    assert main(["plan", MIGRATION, "-o", "json"]) == 0
    first = capsys.readouterr().out
    assert main(["plan", "-t", MIGRATION, "-o", "json"]) == 0
    assert capsys.readouterr().out == first
    assert main(["plan", MIGRATION]) == 0
    assert "rate 100mbit delay 5ms" in capsys.readouterr().out


def test_the_only_topology_in_the_directory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["validate"]) == 2
    assert "no *.xia.yaml" in capsys.readouterr().err
    (tmp_path / "a.xia.yaml").write_text(Path(MIGRATION).read_text())
    assert main(["validate"]) == 0
    (tmp_path / "b.xia.yaml").touch()
    assert main(["validate"]) == 2


def test_completion_prints_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "_XIATB_COMPLETE" in capsys.readouterr().out


def test_version_tells_what_it_stands_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"xiatb", "python", "kernel", "pydantic", "qemu", "libvirtd", "tc"} <= set(told)
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert main(["version"]) == 0
    assert re.search(rf"^xiatb +{re.escape(told['xiatb'])}$", capsys.readouterr().out, re.MULTILINE)
