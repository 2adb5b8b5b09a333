"""`xiatb exec`: run a command in a node or guest."""

from __future__ import annotations

import sys
from typing import Any

import click

from xiatb.cli.labs import check_member, choose_lab, lab_option, require_root
from xiatb.errors import UsageError
from xiatb.lab.client import LabClient
from xiatb.lab.enter import run_inside
from xiatb.lab.state import read_plan, read_state
from xiatb.lab.units import any_duration


@click.command(
    short_help="Run a command in a node or guest.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@lab_option
@click.option("--timeout", metavar="DURATION", help="Kill it after this long (exit 124).")
@click.argument("member", metavar="NODE")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] CMD...")
def command(lab: str | None, timeout: str | None, member: str, argv: tuple[str, ...]) -> None:
    """Run CMD in a NODE's namespaces (or, through its agent, in a guest).

    XIA_CONTROL is set, HOME is the node's own directory. Ends with CMD's exit code, 128 + n after signal n.

    Example: xiatb exec r1 -- ip -br link
    """
    paths = choose_lab(lab)
    plan = read_plan(paths)
    kind = check_member(plan, member)
    require_root()
    words = list(argv[1:] if argv[0] == "--" else argv)
    if not words:
        raise UsageError("no command given", hint="xiatb exec NODE -- CMD")
    seconds = _seconds(timeout)
    if kind == "guest":
        raise click.exceptions.Exit(_in_guest(paths.lab, member, words, seconds))
    raise click.exceptions.Exit(run_inside(paths, read_state(paths), member, words, timeout=seconds))


def _seconds(text: str | None) -> float | None:
    try:
        return any_duration(text) / 1e9 if text else None
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from error


def _in_guest(lab: str, guest: str, words: list[str], seconds: float | None) -> int:
    with LabClient(lab) as client:
        for event in client.stream("guest_exec", guest=guest, argv=words, params=_limit(seconds)):
            if event["event"] == "output":
                target = sys.stderr if event["stream"] == "stderr" else sys.stdout
                target.buffer.write(event["data"].encode("latin-1"))
                target.flush()
            elif event["event"] == "result":
                return int(event["returncode"])
    return 1


def _limit(seconds: float | None) -> dict[str, Any]:
    return {} if seconds is None else {"limit": seconds}
