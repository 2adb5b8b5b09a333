"""The options by which verbs take a topology file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from xiatb.errors import UsageError
from xiatb.lab.load import find, load
from xiatb.lab.plan import Plan
from xiatb.lab.planner import make_plan
from xiatb.lab.topology import DataPlane, check_name
from xiatb.migration import policyfile


def file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A topology file: positional, -t FILE, or the only *.xia.yaml in the directory. Gives `file`."""

    @functools.wraps(function)
    def merged(file: Path | None, topology: Path | None, **options: Any) -> Any:
        if file is not None and topology is not None:
            raise UsageError("the topology file was given twice")
        return function(file=file or topology, **options)

    option = click.option("-t", "--topology", type=click.Path(path_type=Path), help="The same as FILE.")
    return click.argument("file", required=False, type=click.Path(path_type=Path))(option(merged))


def topology_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """File, --name and --seed. Gives `file`, `lab`, `seed`."""
    function = click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the file's seed.")(
        function
    )
    function = click.option("-n", "--name", "lab", metavar="NAME", help="Instead of the file's lab name.")(
        function
    )
    return file_options(function)


def data_plane_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--data-plane. Gives `data_plane`, None when it is not given."""
    return click.option(
        "--data-plane",
        type=click.Choice(get_args(DataPlane)),
        help="What forwards on every node, instead of what the file says.",
    )(function)


def read_plan(
    file: Path | None, lab: str | None, seed: int | None, data_plane: str | None = None,
    policy: Path | None = None,
) -> Plan:  # fmt: skip
    """Read, check and plan; `policy` instead of the migration policy that the file names. Raises
    InvalidFileError with all problems of the topology, then of the policy."""
    if lab is not None and (reason := check_name(lab)):
        raise UsageError(f"--name: {reason}")
    plan = make_plan(load(file or find(Path.cwd())), lab=lab, seed=seed, data_plane=data_plane)
    if policy is not None:
        plan = dataclasses.replace(plan, migration_policy=str(policy.resolve()))
    policyfile.of_plan(plan)
    return plan
