"""The lab and directory of a run: whatever happens, what was begun is ended, in order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xiatb.cli import starting
from xiatb.errors import XiatbError
from xiatb.experiments.rundir import RunDirectory
from xiatb.lab import launch

PLAN: Any = SimpleNamespace(lab="t")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order; nothing is really started."""
    done: list[str] = []
    monkeypatch.setattr(starting, "start_lab", lambda plan, *, quiet: done.append("up"))
    monkeypatch.setattr(launch, "take_down", lambda lab: done.append(f"down {lab}"))
    monkeypatch.setattr(RunDirectory, "hand_over", lambda directory: done.append("handed over"))
    return done


def test_a_run_that_fails_hands_over_and_takes_down(done: list[str], tmp_path: Path) -> None:
    error = XiatbError("no")
    with (
        pytest.raises(XiatbError) as seen,
        starting.lab_of_a_run(PLAN, tmp_path, keep=False, quiet=True) as run,
    ):
        assert run.path.parent == tmp_path / "t" and done == ["up"]
        raise error
    assert seen.value is error and done == ["up", "handed over", "down t"]


def test_a_lab_to_be_kept_stays_up(done: list[str], tmp_path: Path) -> None:
    with starting.lab_of_a_run(PLAN, tmp_path, keep=True, quiet=True):
        pass
    assert done == ["up", "handed over"]


def test_a_lab_without_a_directory_goes_down(done: list[str], tmp_path: Path) -> None:
    (tmp_path / "t").write_text("")
    with pytest.raises(OSError), starting.lab_of_a_run(PLAN, tmp_path, keep=False, quiet=True):
        pass
    assert done == ["up", "down t"]


def test_a_lab_that_does_not_start_is_not_taken_down(
    monkeypatch: pytest.MonkeyPatch, done: list[str], tmp_path: Path
) -> None:
    def refuse(plan: Any, *, quiet: bool) -> None:
        raise XiatbError("no")

    monkeypatch.setattr(starting, "start_lab", refuse)
    with pytest.raises(XiatbError), starting.lab_of_a_run(PLAN, tmp_path, keep=False, quiet=True):
        pass
    assert done == []


def test_a_quiet_verb_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    starting.sayer(True)("a")
    starting.sayer(False)("b")
    assert capsys.readouterr() == ("", "b\n")
