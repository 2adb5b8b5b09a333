"""What README.md and docs/ show is what there is: every command parses, every file and link exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.commands import check_files, parse, words_of

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_SCRIPTS = {path.name for path in (ROOT / "scripts").iterdir()}
_FENCED = re.compile(r"^ *```(?:bash|console|sh)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4,}\$ (.*)$", re.MULTILINE)
_PATH = re.compile(r"`((?:topologies|click_configs|scripts|docs|xiatb|tests)/[\w./-]+)`")
_PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b(?!:)|[<\[…]|\.\.\.")
"""`FILE`, `[-o json]`: a line that tells the form of a command, not one to type."""


def shown_commands(page: Path) -> list[str]:
    """The commands of a page's shell blocks, without prompts, output and line continuations."""
    text = page.read_text()
    found = _INDENTED.findall(text)
    for block in _FENCED.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        console = any(line.strip().startswith("$ ") for line in lines)
        for line in (one.strip().split(" #")[0].strip() for one in lines):
            if console and line.startswith("$ "):
                found.append(line[2:])
            elif not console:
                found.append(line)
    return found


def ours(line: str) -> bool:
    """Whether a line calls xiatb or a script of ours, and is meant to be typed as it stands."""
    line = line.removeprefix("sudo ")
    return line.startswith(("xiatb ", "scripts/")) and not _PLACEHOLDER.search(line)


COMMANDS = [
    (str(page.relative_to(ROOT)), line) for page in PAGES for line in shown_commands(page) if ours(line)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_that_pages_show_are_ones_that_there_are(page: str, line: str) -> None:
    words = words_of(line)
    if words[0] == "xiatb":
        parse(line)
    else:
        assert Path(words[0]).name in _SCRIPTS, f"{page}: there is no {words[0]}"
        check_files(words)


def test_enough_commands_are_found() -> None:
    """The search would be worthless if it found none."""
    assert len(COMMANDS) >= 10
    assert ("docs/cli/up.md", "sudo xiatb up topologies/minimal.yaml") in COMMANDS
    readme = [line for page, line in COMMANDS if page == "README.md"]
    assert any("scripts/demo" in line for line in readme)


def test_the_readme_shows_real_output() -> None:
    assert re.findall(r"^@\w+@$", (ROOT / "README.md").read_text(), re.MULTILINE) == [], (
        "places to be filled in"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_pages_name_exist(page: Path) -> None:
    for path in _PATH.findall(page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}, which is not there"
