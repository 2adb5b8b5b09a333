"""`xiatb migration`: act on a migration that is under way."""

from __future__ import annotations

from typing import Any

import click

from xiatb.cli import migrationview as view
from xiatb.cli.labs import choose_lab, lab_option, require_root
from xiatb.cli.output import output_option, print_json
from xiatb.errors import UsageError, XiatbError
from xiatb.lab.client import LabClient
from xiatb.node.control_protocol import ControlError


@click.group("migration", short_help="Show, change, switch, resume or cancel a migration under way.")
def command() -> None:
    """Act on a migration that is under way, from another terminal than that of `xiatb migrate`.

    Example: xiatb migration set vm1 --bandwidth 8
    """


@command.command("show")
@click.argument("guest")
@lab_option
@output_option
def show(guest: str, lab: str | None, output: str) -> None:
    """Show how GUEST's migration stands: phase, progress, limits, the controller's decisions.

    Example: xiatb migration show vm1
    """
    told = _ask(lab, "show", guest, {})
    if output == "json":
        print_json(told)
    else:
        view.tell_running(told)


@command.command("set")
@click.argument("guest")
@click.option("--bandwidth", type=click.IntRange(0, 1 << 20), metavar="MIB/S", help="New cap; 0: none.")
@click.option("--downtime", type=click.IntRange(1, 2_000_000), metavar="MS", help="New downtime limit.")
@lab_option
@output_option
def set_(guest: str, bandwidth: int | None, downtime: int | None, lab: str | None, output: str) -> None:
    """Give GUEST's migration other limits, at once.

    Example: xiatb migration set vm1 --bandwidth 8 --downtime 200
    """
    wanted = {"bandwidth": bandwidth, "downtime": downtime}
    changes = {name: value for name, value in wanted.items() if value is not None}
    if not changes:
        raise UsageError("nothing to change", hint="add --bandwidth or --downtime")
    _say(_ask(lab, "set", guest, changes), output, ", ".join(f"{k} {v}" for k, v in changes.items()))


@command.command("switch")
@click.argument("guest")
@lab_option
@output_option
def switch(guest: str, lab: str | None, output: str) -> None:
    """Switch GUEST's migration to post-copy now (started with --mode hybrid).

    Example: xiatb migration switch vm1
    """
    told = _ask(lab, "switch", guest, {})
    _taken_on(told["accepted"], f"the migration of {guest} cannot be switched now",
              "it needs --mode hybrid, and memory that is being copied")  # fmt: skip
    _say(told, output, "switching to post-copy")


@command.command("resume")
@click.argument("guest")
@lab_option
@output_option
def resume(guest: str, lab: str | None, output: str) -> None:
    """Take GUEST's broken post-copy up now, in place of waiting for the next attempt.

    Example: xiatb migration resume vm1
    """
    told = _ask(lab, "resume", guest, {})
    _taken_on(told["accepted"], f"the migration of {guest} waits for nothing",
              f"xiatb migration show {guest} tells how it stands")  # fmt: skip
    _say(told, output, "asking the destination")


@command.command("cancel")
@click.argument("guest")
@lab_option
@output_option
def cancel(guest: str, lab: str | None, output: str) -> None:
    """Cancel GUEST's migration; the guest runs on where it is.

    Example: xiatb migration cancel vm1
    """
    told = _request(lab, "migrate_cancel", guest=guest)
    _taken_on(told["cancelled"], f"too late: {guest} has been handed over already",
              "let it end, then migrate it back")  # fmt: skip
    _say(told, output, "cancelling")


def _taken_on(accepted: bool, refusal: str, hint: str) -> None:
    """Raises XiatbError unless the daemon has accepted what it was asked for."""
    if not accepted:
        raise XiatbError(refusal, hint=hint)


def _ask(lab: str | None, action: str, guest: str, changes: dict[str, int]) -> dict[str, Any]:
    return _request(lab, "migrate_control", guest=guest, action=action, changes=changes)


def _request(lab: str | None, op: str, **fields: Any) -> dict[str, Any]:
    require_root()
    with LabClient(choose_lab(lab).lab) as client:
        try:
            return client.request(op, **fields)
        except ControlError as error:
            if error.code in ("EUSAGE", "UsageError"):
                raise UsageError(error.message, hint=error.hint) from None
            raise


def _say(told: dict[str, Any], output: str, words: str) -> None:
    if output == "json":
        print_json(told)
    else:
        click.echo(words)
