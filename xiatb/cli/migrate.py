"""`xiatb migrate`: move a running guest to another hypervisor host of its lab."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from xiatb.cli import migrationview as view
from xiatb.cli.labs import choose_lab, lab_option, require_root
from xiatb.cli.migrate_options import collect, moving_options
from xiatb.cli.output import output_option, print_json
from xiatb.errors import InterruptedByUserError, UsageError, XiatbError
from xiatb.lab.client import LabClient
from xiatb.migration.advice import advice
from xiatb.node.control_protocol import ControlError

_PLAN_S = 60.0
_AGAIN_S = 0.2


@click.command("migrate", short_help="Move a running guest to another hypervisor host.")
@click.argument("guest")
@click.option("--to", "host", required=True, metavar="HOST", help="The hypervisor host to move the guest to.")
@moving_options
@click.option(
    "--transport", type=click.Choice(["xia", "tcp"]), default="xia", show_default=True,
    help="tcp: libvirt's own migration over TCP/IP, in a lab with baseline: ip.",
)  # fmt: skip
@click.option(
    "--plan", "plan_only", is_flag=True,
    help="Say what would happen, predict time, downtime and bytes; move nothing."
)
@lab_option
@output_option
def command(
    guest: str, host: str, transport: str, plan_only: bool, lab: str | None, output: str, **chosen: Any
) -> None:
    """Move GUEST, which goes on running, to another hypervisor HOST over XIA.

    Memory and CPU state always move; with --with-storage the disk moves too. Ctrl-C cancels: the guest then
    stays where it is. `xiatb migration` changes limits meanwhile. Exit codes: 0 moved, 1 not moved (the
    guest runs on where it was), 2 unknown guest or host, already there, or options that do not go together,
    5 no such lab, 130 cancelled.

    Example: xiatb migrate vm1 --to hv2 --with-storage --mode hybrid
    """
    storage, options = collect(chosen)
    if plan_only and transport != "xia":
        raise UsageError("--plan is for migrations over XIA", hint="leave out --transport tcp")
    require_root()
    name = choose_lab(lab).lab
    client = LabClient(name)
    if plan_only:
        show_plan(client, {"guest": guest, "to": host, "storage": storage, **options}, output)
        return
    with client, _Cancel(name, guest) as cancel:
        wanted = {**options, "transport": transport}
        events = client.stream("migrate", guest=guest, to=host, storage=storage, params=wanted)
        try:
            result = follow(events, quiet=output == "json")
        except ControlError as error:
            if output == "json":
                print_json({"error": {"code": error.code, "message": error.message, "hint": error.hint}})
            raise _meaning(error, cancelled=cancel.asked) from None
    if output == "json":
        print_json(result)
    else:
        _tell(result)
    if result.get("pages", {}).get("verified") is False:
        raise XiatbError(
            "the guest has moved, but its memory did not arrive as it was sent",
            hint=f"restart it: xiatb exec {result['to']} -- virsh reset {result['guest']}",
        )


def show_plan(client: LabClient, wanted: dict[str, Any], output: str) -> None:
    """Ask for a plan and show it; raises XiatbError when there is none, or when the destination refuses."""
    with client:
        try:
            plan = client.request("migrate_plan", timeout=_PLAN_S, params=wanted)
        except ControlError as error:
            raise _meaning(error, cancelled=False) from None
    if output == "json":
        print_json(plan)
    else:
        view.tell_plan(plan)
    if not plan["admitted"]:
        raise XiatbError(
            f"{plan['to']} would not take the guest ({plan['code']})",
            hint=advice(plan["code"], wanted["guest"], plan["from"], plan["to"]),
        )


def _meaning(error: ControlError, *, cancelled: bool) -> XiatbError:
    if error.code in ("EUSAGE", "UsageError", "ENOSYS"):  # ENOSYS: a lab without guests
        return UsageError(error.message, hint=error.hint)
    if cancelled and error.code == "cancelled":
        return InterruptedByUserError("migration cancelled; the guest runs on where it was")
    return XiatbError(f"not migrated ({error.code}): {error.message}", hint=error.hint)


def follow(events: Iterator[dict[str, Any]], *, quiet: bool) -> dict[str, Any]:
    """Show events as a progress bar on standard error until the result comes."""
    result: dict[str, Any] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True, quiet=quiet)
    plain = not quiet and not console.is_terminal
    begin = time.monotonic()
    with Progress(*columns, console=console, transient=plain, disable=plain) as progress:
        task = progress.add_task("starting", total=None, detail="")
        for event in events:
            if event["event"] == "result":
                result = {key: value for key, value in event.items() if key != "event"}
            elif event["event"] == "phase" and plain:
                phase = str(event.get("phase"))
                click.echo(f"[{time.monotonic() - begin:6.1f} s] {view.phase(phase)}", err=True)
            elif event["event"] == "decision" and not quiet:
                console.print(view.decision(event), highlight=False, soft_wrap=True)
            elif event["event"] == "phase":
                _show_phase(progress, task, str(event.get("phase")))
            elif event["event"] == "progress":
                _show_progress(progress, task, event)
        progress.update(task, total=1, completed=1)
    return result


def _show_phase(progress: Progress, task: TaskID, phase: str) -> None:
    progress.update(task, description=view.phase(phase))
    if phase in ("storage", "precopy"):
        progress.update(task, total=None, completed=0)


def _show_progress(progress: Progress, task: TaskID, event: dict[str, Any]) -> None:
    total, remaining = int(event.get("total", 0)), int(event.get("remaining", 0))
    detail = f"{view.mib(int(event.get('rate', 0)))}/s"
    if event.get("phase") == "precopy":
        detail += f"  pass {event.get('pass', 0)}"
    detail += f"  {view.mib(remaining)} left"
    progress.update(task, total=total or None, completed=max(0, total - remaining), detail=detail)


def _tell(result: dict[str, Any]) -> None:
    sent = result.get("bytes_qemu", {})
    click.echo(f"{result.get('guest')} moved from {result.get('from')} to {result.get('to')}")
    rows = [
        ("mode", _mode(result)),
        *view.channels(result),
        ("total time", _ms(result.get("total_ms")) + view.predicted(result, "total_s")),
        ("downtime", _ms(result.get("downtime_ms")) + view.predicted(result, "downtime_s")),
        ("passes", str(len(result.get("passes", [])))),
        ("memory sent", view.mib(int(sent.get("ram", 0)))),
        *view.disk(result),
        ("locator", result.get("locator") or "the guest has not joined yet"),
    ]
    for label, value in rows:
        click.echo(f"  {label:<12} {value}")
    if "pages" in result:
        view.tell_pages(result["pages"])
    if result.get("note"):
        click.echo(f"  note: {result['note']}", err=True)


def _mode(result: dict[str, Any]) -> str:
    streams, recoveries = int(result.get("streams", 1)), int(result.get("recoveries", 0))
    several = f", {streams} streams" if streams > 1 else ""
    again = f", taken up again {recoveries} times" if recoveries else ""
    return f"{result.get('mode', 'precopy')}{several}{again}"


def _ms(value: Any) -> str:
    return f"{float(value):.0f} ms" if value is not None else "not known"


class _Cancel:
    """While it is entered, Ctrl-C asks the lab to cancel the migration; a second one ends the command."""

    def __init__(self, lab: str, guest: str) -> None:
        self._lab = lab
        self._guest = guest
        self._before: Any = None
        self._over = threading.Event()
        self.asked = False

    def __enter__(self) -> _Cancel:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        sys.stderr.write("\ncancelling; Ctrl-C again to stop watching\n")
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        """Until the lab has heard it: a migration that was asked for an instant ago may not be there yet."""
        while not self._over.is_set():
            try:
                with LabClient(self._lab) as client:
                    if not client.request("migrate_cancel", guest=self._guest)["cancelled"]:
                        sys.stderr.write(f"too late: {self._guest} has been handed over already\n")
                return
            except XiatbError as error:
                if not (isinstance(error, ControlError) and error.code == "EUSAGE"):
                    sys.stderr.write(f"cancel: {error.message}\n")
                    return
            self._over.wait(_AGAIN_S)
