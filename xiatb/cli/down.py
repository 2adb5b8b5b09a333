"""`xiatb down`: take a lab down."""

from __future__ import annotations

from pathlib import Path

import click

from xiatb.cli.labs import choose_lab, require_root
from xiatb.cli.progress import UpProgress
from xiatb.errors import UsageError
from xiatb.lab import launch
from xiatb.lab.load import load
from xiatb.lab.paths import LabPaths, lab_names


@click.command(short_help="Take a lab down; remove exactly what it had made.")
@click.argument("lab", required=False)
@click.option("-l", "--lab", "option", metavar="NAME", help="The lab; not needed when only one is up.")
@click.option("-a", "--all", "everything", is_flag=True, help="Every lab on this machine.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(lab: str | None, option: str | None, everything: bool, quiet: bool) -> None:
    """Take LAB (a name or a topology file) down and remove exactly what it had made.

    Works also when its supervisor or any other process of it was killed.

    Example: xiatb down minimal
    """
    if lab and option:
        raise UsageError("the lab was given twice")
    chosen = [LabPaths(name) for name in lab_names()] if everything else [_chosen(lab or option)]
    require_root()
    for paths in chosen:
        with UpProgress(f"down {paths.lab}", quiet=quiet) as progress:
            launch.stop(paths, progress.say)
        if not quiet:
            click.echo(f"lab {paths.lab} is down")


def _chosen(name: str | None) -> LabPaths:
    if name and name.endswith((".yaml", ".yml")) and Path(name).exists():
        name = load(Path(name)).file.name
    if name and LabPaths(name).root.is_dir():
        return LabPaths(name)
    return choose_lab(name)
