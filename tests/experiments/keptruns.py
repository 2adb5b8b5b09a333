"""A run of a verb with a lab of its own, whose lab the tests of a file share once the verb has ended."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.labs import TestLab, leftovers
from xiatb.errors import LabStateError
from xiatb.lab.plan import Plan
from xiatb.lab.state import read_plan

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


@dataclass
class KeptRun:
    """The verb has ended; its lab is up, with the guest where the run has left it."""

    lab: TestLab
    plan: Plan
    done: subprocess.CompletedProcess[str]
    said: dict[str, Any]

    @property
    def directory(self) -> Path:
        """Where the run's results are."""
        return Path(self.said["run"])

    def json(self, name: str) -> dict[str, Any]:
        """A file of results."""
        loaded: dict[str, Any] = json.loads((self.directory / name).read_text())
        return loaded


@contextlib.contextmanager
def kept_run(base: Path, verb: str, topology: str, changes: dict[str, str]) -> Iterator[KeptRun]:
    """`xiatb VERB --keep -o json` on the example `topology` under another name, and with `changes` to its
    text; at the end nothing of it may be left."""
    lab = TestLab(base)
    lab.text = (TOPOLOGIES / f"{topology}.yaml").read_text().replace(f"name: {topology}", f"name: {lab.name}")
    for before, after in changes.items():
        lab.text = lab.text.replace(before, after)
    lab_id = "none"
    try:
        words = [verb, str(lab.file), "--runs", str(base / "runs"), "--keep", "-o", "json"]
        done = lab.cli(*words, timeout=300)
        assert done.stdout, done.stderr
        lab_id = lab.lab_id()
        yield KeptRun(lab, read_plan(lab.paths), done, json.loads(done.stdout))
    finally:
        with contextlib.suppress(LabStateError):
            lab.down()
    assert leftovers(lab.name, lab_id) == []
