"""The options by which verbs take a topology file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from xiatb.errors import UsageError
from xiatb.lab.load import find, load
from xiatb.lab.plan import Plan
from xiatb.lab.planner import make_plan
from xiatb.lab.topology import check_name


def file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A topology file: positional, -t FILE, or the only *.xia.yaml in the directory. Gives `file`."""
    function = click.option(
        "-t",
        "--topology",
        type=click.Path(path_type=Path),
        callback=_one_file,
        expose_value=False,
        is_eager=False,
    )(function)
    return click.argument("file", required=False, type=click.Path(path_type=Path))(function)


def topology_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """File, --name and --seed. Gives `file`, `lab`, `seed`."""
    function = click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the file's seed.")(
        function
    )
    function = click.option("-n", "--name", "lab", metavar="NAME", help="Instead of the file's lab name.")(
        function
    )
    return file_options(function)


def _one_file(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    if context.params.get("file") is not None:
        raise click.UsageError("the topology file was given twice")
    context.params["file"] = value


def read_plan(file: Path | None, lab: str | None, seed: int | None) -> Plan:
    """Read, check and plan. Raises InvalidFileError with all problems of the file."""
    if lab is not None and (reason := check_name(lab)):
        raise UsageError(f"--name: {reason}")
    return make_plan(load(file or find(Path.cwd())), lab=lab, seed=seed)
