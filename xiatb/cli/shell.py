"""`xiatb shell`: an interactive shell in a node."""

from __future__ import annotations

import os

import click

from xiatb.cli.labs import check_member, choose_lab, lab_option, require_root
from xiatb.errors import UsageError
from xiatb.lab.enter import run_inside
from xiatb.lab.state import read_plan, read_state


@click.command(short_help="Open a shell in a node.")
@lab_option
@click.argument("node")
def command(lab: str | None, node: str) -> None:
    """Open a shell in NODE's namespaces, in its home, with XIA_CONTROL set.

    Ends with the shell's exit code.

    Example: xiatb shell h1
    """
    paths = choose_lab(lab)
    if check_member(read_plan(paths), node) == "guest":
        raise UsageError(f"{node} is a guest", hint=f"xiatb exec {node} -- CMD")
    require_root()
    shell = os.environ.get("SHELL", "/bin/bash")
    argv = [shell, "--norc", "-i"] if shell.endswith("bash") else [shell, "-i"]
    raise click.exceptions.Exit(run_inside(paths, read_state(paths), node, argv))
