"""Every file in scripts/ (and .ci/run) is run here, or at least read by its shell; the long ones by their
short ways."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.lab.labs import needs_root

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file()) + [ROOT / ".ci" / "run"]
SHELL = [path for path in SCRIPTS if "bash" in path.read_text().splitlines()[0]]


def run(*argv: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in argv]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, cwd="/")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_and_run_by_a_test(path: Path) -> None:
    assert os.access(path, os.X_OK)
    tests = [file.read_text() for file in (ROOT / "tests").rglob("test_*.py")]
    assert any(f'"{path.name}"' in text or f"scripts/{path.name}" in text for text in tests), (
        f"no test runs {path.name}"
    )


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shell_scripts_parse_and_stop_at_errors(path: Path) -> None:
    assert run("bash", "-n", path).returncode == 0
    assert "\nset -euo pipefail\n" in path.read_text()


def test_setup_tells_its_use_and_refuses_what_it_does_not_know() -> None:
    shown = run(ROOT / "scripts" / "setup", "--help")
    assert shown.returncode == 0
    assert "sudo scripts/setup" in shown.stdout
    refused = run(ROOT / "scripts" / "setup", "--frobnicate")
    assert refused.returncode == 2
    assert "unknown argument --frobnicate" in refused.stderr


@needs_root
def test_setup_says_that_this_host_can_be_served() -> None:
    done = run(ROOT / "scripts" / "setup", "--check")
    assert (done.returncode, done.stdout) == (0, "setup: this host can be served\n"), done.stderr


@needs_root
def test_setup_refuses_a_user_who_is_not_root() -> None:
    with tempfile.TemporaryDirectory() as place:  # where everybody can read it
        os.mkdir(f"{place}/scripts")
        script = shutil.copy(ROOT / "scripts" / "setup", f"{place}/scripts")
        for path in (place, f"{place}/scripts", script):  # whatever the umask
            os.chmod(path, 0o755)
        done = run("setpriv", "--reuid=65534", "--clear-groups", "bash", script, "--check")
    assert done.returncode == 4
    assert "needs root" in done.stderr
    assert "hint: run: sudo scripts/setup" in done.stderr


def test_gen_element_docs_writes_the_pages_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = Path(shutil.copy(ROOT / "scripts" / "gen-element-docs", tmp_path / "scripts"))
    stale = tmp_path / "docs" / "elements" / "Gone.md"
    stale.parent.mkdir(parents=True)
    stale.touch()
    done = run(sys.executable, script)
    assert done.returncode == 0, done.stderr
    written = {page.name: page.read_text() for page in stale.parent.iterdir()}
    assert written == {page.name: page.read_text() for page in (ROOT / "docs" / "elements").iterdir()}


@needs_root
@pytest.mark.guest
def test_demo_sets_up_and_hands_its_arguments_on() -> None:
    done = run(ROOT / "scripts" / "demo", "--help", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Usage: xiatb demo" in done.stdout


def test_ci_calls_the_tests_which_set_up_first() -> None:
    assert "\nexec scripts/test " in (ROOT / ".ci" / "run").read_text()
    text = (ROOT / "scripts" / "test").read_text()
    before, *runs = text.split("-m pytest ")
    assert "\nscripts/setup\n" in before
    assert [run.split(" --durations")[0] for run in runs] == [
        '"$@"\nfi\ncode=0\n"$bin/python" ',
        "-n 2 --dist loadfile -m 'not guest and not alone'",
        "-m 'guest or alone'",
    ], "every test is in one of both runs"
    assert text.count("|| code=$?") == 2
    assert text.endswith('exit "$code"\n')


def test_vagrant_makes_a_debian_12_machine_that_is_set_up() -> None:
    vagrant = (ROOT / "Vagrantfile").read_text()
    assert "scripts/setup" in vagrant
    assert "debian/bookworm64" in vagrant
    assert "nested" in vagrant
