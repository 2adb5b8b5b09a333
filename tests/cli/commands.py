"""Command lines that help and docs show: are they ones that xiatb would take?"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

import click

from xiatb.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
_ENDS = {"&", "&&", "||", "|", ";", ">", "2>", "<"}


def words_of(line: str) -> list[str]:
    """The words of one simple command: up to a pipe, a redirection or a comment, without `sudo`."""
    words = shlex.split(line, comments=True)
    end = next((index for index, word in enumerate(words) if word in _ENDS), len(words))
    return words[1:end] if words[:1] == ["sudo"] else words[:end]


def parse(line: str) -> None:
    """Fails when `xiatb ...` names a verb, option or file of ours that is not there; runs nothing."""
    words = words_of(line)
    assert words[0] == "xiatb", line
    command: click.Command | None = cli
    rest = words[1:]
    while isinstance(command, click.Group):
        context = click.Context(command, info_name="xiatb")
        _, rest, _ = command.make_parser(context).parse_args(list(rest))
        _, command, rest = command.resolve_command(context, rest)
        assert command is not None, line
    assert command is not None
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command.make_context("xiatb", list(rest))
    check_files(words)


def check_files(words: list[str]) -> None:
    """Fails when a word is a path into the repository's own folders and nothing is there."""
    for word in words:
        if word.startswith(("topologies/", "click_configs/", "scripts/", "docs/", "examples/")):
            assert (ROOT / word).exists(), f"{word} does not exist"
