"""Labs of the tests' own: unique names, and a look at whether anything of them is left on the machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from xiatb.errors import LabStateError
from xiatb.lab import launch, process
from xiatb.lab.journal import read_journal
from xiatb.lab.paths import DISK_ROOT, NETNS_ROOT, RUN_ROOT, LabPaths
from xiatb.lab.state import LabState, read_state

INTERRUPTED = (130, -signal.SIGINT)
"""How an interrupted command ends. `python -m` kills itself by SIGINT in the end, whatever it would have
returned, when the interruption came while source text was being executed, as it is for each dataclass that an
import makes. A shell shows both as 130."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

TWO_HOSTS = """
name: x
nodes:
  h1: {kind: host}
  h2: {kind: host}
  r1: {kind: router, ad: ad1}
links:
  - h1 -- r1
  - h2 -- r1
"""


@dataclass
class TestLab:
    """A lab under a name that nothing else has."""

    __test__ = False
    directory: Path
    text: str = TWO_HOSTS
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")

    @property
    def paths(self) -> LabPaths:
        return LabPaths(self.name)

    @property
    def file(self) -> Path:
        path = self.directory / f"{self.name}.yaml"
        path.write_text(self.text)
        return path

    def up(self) -> LabState:
        launch.bring_up(self.file, lab=self.name)
        return read_state(self.paths)

    def down(self) -> None:
        launch.take_down(self.name)

    def cli(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(cli(*words), capture_output=True, text=True, timeout=timeout, check=False)

    def lab_id(self) -> str:
        return read_journal(self.paths.journal)[0].id


def cli(*words: str) -> list[str]:
    return [sys.executable, "-m", "xiatb.cli.main", *words]


def leftovers(name: str, lab_id: str) -> list[str]:
    """Everything on this machine that still belongs to a lab, one line each."""
    found = [str(path) for path in (RUN_ROOT / name, DISK_ROOT / name) if path.exists()]
    if NETNS_ROOT.is_dir():
        found += [entry.name for entry in NETNS_ROOT.iterdir() if entry.name.startswith(f"xiatb-{name}-")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line]
    links = subprocess.run(["ip", "-d", "link"], capture_output=True, text=True, check=True).stdout
    found += [line for line in links.splitlines() if name in line]
    found += [f"process {one.pid}" for one in process.marked(lab_id)]
    return found + _naming(f"/{name}/")


def _naming(word: str) -> list[str]:
    """Processes with a word in their command line (QEMU has no mark, but the lab's paths)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [line] if word in line else []
    return found


@contextlib.contextmanager
def running(directory: Path, text: str = TWO_HOSTS) -> Iterator[tuple[TestLab, LabState]]:
    """A lab that is up; whatever happens it is down afterwards and nothing is left."""
    lab = TestLab(directory, text)
    try:
        state = lab.up()
        yield lab, state
    finally:
        with contextlib.suppress(LabStateError):
            lab.down()
    assert leftovers(lab.name, state.id) == []
