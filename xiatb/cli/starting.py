"""Starting a lab from a verb, and a lab of a verb's own: what `up`, `run`, `demo` and `baseline` share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from xiatb.cli.labs import require_root
from xiatb.cli.progress import UpProgress
from xiatb.cli.supervise import extensions
from xiatb.experiments.rundir import RunDirectory
from xiatb.lab import doctor, launch
from xiatb.lab.plan import Plan


def start_lab(plan: Plan, *, quiet: bool) -> None:
    """Check that this host can serve `plan`, bring its lab up and return when it is ready.

    Raises HostNotAbleError, LabStateError, or what the supervisor failed with; an interruption rolls back.
    """
    require_root()
    doctor.require(plan, extensions(plan)[0])
    with UpProgress(f"up {plan.lab}", quiet=quiet) as progress:
        launch.start(plan, launch.supervise_command(), progress.event)


@contextlib.contextmanager
def lab_of_a_run(plan: Plan, runs: Path, *, keep: bool, quiet: bool) -> Iterator[RunDirectory]:
    """Brings the lab of `plan` up and gives the directory of its run, made in `runs`; at the end, whatever
    it is, the directory goes to the user behind sudo and the lab down, unless it is to be kept.

    Raises as `start_lab` and `launch.take_down`; OSError when the directory cannot be made.
    """
    start_lab(plan, quiet=quiet)
    try:
        directory = RunDirectory.create(plan.lab, runs)
        try:
            yield directory
        finally:
            directory.hand_over()
    finally:
        if not keep:
            launch.take_down(plan.lab)


def sayer(quiet: bool) -> Callable[[str], None]:
    """Says how an experiment goes on, on standard error; nothing when `quiet`."""
    return (lambda text: None) if quiet else (lambda text: click.echo(text, err=True))
