"""Which lab a verb means: -l NAME, the LAB argument, or the only one that is up."""

from __future__ import annotations

import os

import click

from xiatb.errors import HostNotAbleError, LabStateError, UsageError
from xiatb.lab.paths import LabPaths, lab_names
from xiatb.lab.plan import Plan
from xiatb.lab.source import did_you_mean
from xiatb.lab.state import no_such_lab

lab_option = click.option(
    "-l", "--lab", metavar="NAME", envvar="XIATB_LAB", help="The lab; not needed when only one is up."
)


def choose_lab(name: str | None) -> LabPaths:
    """Files of the lab meant. Raises LabStateError (exit 5) when there is none, UsageError when it is
    unclear."""
    labs = lab_names()
    if name:
        if name not in labs:
            raise no_such_lab(name)
        return LabPaths(name)
    if len(labs) == 1:
        return LabPaths(labs[0])
    if not labs:
        raise LabStateError("no lab is up", hint="xiatb up FILE starts one")
    raise UsageError(f"which lab? {', '.join(labs)} are up", hint="name it: -l NAME")


def require_root() -> None:
    """Raises HostNotAbleError (exit 4) unless run by root."""
    if os.geteuid() != 0:
        raise HostNotAbleError("this needs root", hint="sudo xiatb ...")


def check_member(plan: Plan, name: str) -> str:
    """ "node" or "guest". Raises UsageError with the nearest name when it is neither."""
    nodes = [node.name for node in plan.nodes]
    guests = [guest.name for guest in plan.guests]
    if name in nodes:
        return "node"
    if name in guests:
        return "guest"
    raise UsageError(
        f"no node or guest named {name!r} in {plan.lab}", hint=did_you_mean(name, nodes + guests)
    )
