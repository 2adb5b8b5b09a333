"""`xiatb demo`: the main job on one command, verified."""

from __future__ import annotations

from pathlib import Path

import click

from xiatb.cli.migrate import follow
from xiatb.cli.output import output_option, print_json, print_table
from xiatb.cli.starting import lab_of_a_run, sayer
from xiatb.cli.topology import data_plane_option, read_plan
from xiatb.errors import CheckFailedError
from xiatb.experiments.demo import Demo, Load, Verdict
from xiatb.experiments.result import MigrationResult
from xiatb.experiments.rundir import RunDirectory
from xiatb.lab.runner import HostRunner

_TOPOLOGY = Path(__file__).resolve().parents[2] / "topologies" / "migration.yaml"
_COLUMNS = (
    "migration", "mode", "total s", "downtime ms", "client gap ms", "outage ms", "probes lost",
    "stream intact", "uptime ok", "disk intact", "on wire MB", "from QEMU MB", "passes", "non-XIA B",
)  # fmt: skip


@click.command(short_help="Migrate a guest to another AD and back, verified.")
@click.argument("file", type=click.Path(path_type=Path), default=_TOPOLOGY)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where the run's directory is made.")  # fmt: skip
@data_plane_option
@click.option("--keep", is_flag=True, help="Leave the lab up at the end.")
@output_option
def command(file: Path, runs: Path, data_plane: str | None, keep: bool, output: str) -> None:
    """Migrate a guest to another AD by pre-copy and back by post-copy under load, cancel a migration in
    between, verify all of it, and write RUNS/<lab>/<id>/.

    Ends with 0 only if the verification holds, with 3 if it does not.

    Example: xiatb demo topologies/migration.yaml
    """
    plan = read_plan(file, None, None, data_plane)
    quiet = output == "json"
    with lab_of_a_run(plan, runs, keep=keep, quiet=quiet) as directory:
        demo = Demo(plan, directory, HostRunner(), sayer(quiet), lambda events: follow(events, quiet=quiet))
        verdict = demo.run(Load())
    _show(verdict, directory, quiet)


def _row(result: MigrationResult) -> list[object]:
    yes = {True: "yes", False: "NO"}
    return [
        f"{result.source} -> {result.destination}",
        result.mode,
        f"{result.total_ms / 1000:.1f}",
        f"{result.downtime_ms:.0f}",
        f"{result.client_gap_ms:.0f}",
        f"{result.client_outage_ms:.0f}",
        f"{result.probes_lost} of {result.probes_sent}",
        yes[result.stream_intact],
        yes[result.guest_uptime_monotonic],
        yes[result.disk_intact],
        f"{result.bytes_on_wire / 1e6:.1f}",
        f"{result.bytes_qemu / 1e6:.1f}",
        result.passes,
        result.non_xia_bytes,
    ]


def _show(verdict: Verdict, directory: RunDirectory, quiet: bool) -> None:
    if quiet:
        migrations = [result.to_json() for result in verdict.results]
        cancelled = verdict.cancelled.to_json()
        print_json(
            {
                "run": str(directory.path),
                "verified": verdict.verified,
                "migrations": migrations,
                "cancelled": cancelled,
            }
        )
    else:
        print_table(_COLUMNS, [_row(result) for result in verdict.results])
        one = verdict.cancelled
        click.echo(f"cancelled    {one.guest} stayed on {one.source}; settled in {one.settled_ms:.0f} ms")
        click.echo(f"results: {directory.path}/ (result.json, timeline.png, inter-ad.pcapng)")
    if not verdict.verified:
        raise CheckFailedError("the verification does not hold: " + "; ".join(verdict.failures))
