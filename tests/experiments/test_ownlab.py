"""Interrupted scripts: labs that they have brought up go down, whenever the signal comes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xiatb.errors import LabStateError
from xiatb.experiments import ownlab
from xiatb.experiments.bench import __main__ as bench
from xiatb.experiments.faults import __main__ as faults
from xiatb.experiments.ownlab import Interruptions, own_lab


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has interruptions of its own, and leaves the handlers as they were."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    mine = Interruptions()
    for module in (ownlab, bench, faults):
        monkeypatch.setattr(module, "INTERRUPTIONS", mine)
    mine.arm()
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def come(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


class Labs:
    """In the place of lab.launch. `during`: done in the middle of "up" or "down"."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.log: list[str] = []
        self.during: dict[str, Any] = {}

    def journal(self, name: str) -> Path:
        return self.base / name

    def bring_up(self, topology: Path, *, lab: str, data_plane: str | None) -> str:
        if self.journal(lab).exists():
            raise LabStateError(f"lab {lab} is already up")
        self.journal(lab).touch()
        self.during.get("up", lambda: None)()
        self.log.append(f"up {lab}")
        return "plan"

    def take_down(self, name: str) -> None:
        self.during.get("down", lambda: None)()
        self.journal(name).unlink()
        self.log.append(f"down {name}")


@pytest.fixture
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labs:
    made = Labs(tmp_path)

    class Paths:
        def __init__(self, name: str) -> None:
            self.journal = made.journal(name)

    monkeypatch.setattr(ownlab, "launch", made)
    monkeypatch.setattr(ownlab, "LabPaths", Paths)
    return made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_and_others_do_not_disturb_what_follows(labs: Labs, number: int) -> None:
    labs.during["down"] = lambda: [come(), come(signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt), own_lab(Path("x"), "a"):
        come(number)
    assert labs.log == ["up a", "down a"]


def test_a_signal_while_the_lab_goes_down_waits_for_that(labs: Labs) -> None:
    labs.during["down"] = come
    with pytest.raises(KeyboardInterrupt), own_lab(Path("x"), "a"):
        pass
    assert labs.log == ["up a", "down a"]


def test_a_signal_while_the_lab_comes_up_leaves_none(labs: Labs) -> None:
    """launch.start rolls back; what is left when it comes right at the end of that goes down here."""
    labs.during["up"] = come
    with pytest.raises(KeyboardInterrupt), own_lab(Path("x"), "a"):
        pass
    assert labs.log == ["down a"]


def test_anothers_lab_of_that_name_stays(labs: Labs) -> None:
    labs.journal("a").touch()
    with pytest.raises(LabStateError), own_lab(Path("x"), "a"):
        pass
    assert labs.log == []
    assert labs.journal("a").exists()


def test_an_interrupted_bench_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(runs: int, seconds: float) -> list[Any]:
        come(signal.SIGINT)
        return []

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setitem(bench.BENCHMARKS, "links", measure)
    assert bench.main(["links"]) == 130
    assert capsys.readouterr() == ("", "bench: links\nbench: interrupted\n")


def test_interrupted_faults_say_so_and_take_their_lab_down(
    labs: Labs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Runner:
        ruined = False

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run(self, *_: Any) -> None:
            come()

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(faults, "FaultRunner", Runner)
    assert faults.main(["cut/first", "--name", "mine"]) == 130
    assert capsys.readouterr() == ("", "faults: interrupted\n")
    assert labs.log == ["up mine", "down mine"]
