"""`xiatb baseline`: migration over XIA and over TCP/IP on the same lab, side by side."""

from __future__ import annotations

from pathlib import Path

import click

from xiatb.cli.migrate import follow
from xiatb.cli.output import output_option, print_json, print_table
from xiatb.cli.starting import lab_of_a_run, sayer
from xiatb.cli.topology import data_plane_option, read_plan
from xiatb.errors import CheckFailedError
from xiatb.experiments.baseline import BaselineRun, baseline_of
from xiatb.experiments.rundir import RunDirectory
from xiatb.experiments.sidebyside import Sample, compare, failures, table, to_json
from xiatb.lab.runner import HostRunner

_TOPOLOGY = Path(__file__).resolve().parents[2] / "topologies" / "baseline.yaml"


@click.command(short_help="Migrate over XIA and over TCP/IP in turns, and compare.")
@click.argument("file", type=click.Path(path_type=Path), default=_TOPOLOGY)
@click.option("--to", "hosts", multiple=True, metavar="HOST",
              help="Hypervisor to go to; repeatable. Default: all others, then home.")  # fmt: skip
@click.option("--repeat", type=click.IntRange(1, 1000), default=1, show_default=True,
              help="Rounds over each transport; figures are medians.")  # fmt: skip
@click.option("--with-storage", "storage", is_flag=True, help="Move the guest's disk too.")
@click.option("--no-encrypt", is_flag=True, help="XIA's bulk channels in the clear, as TCP's are.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where the run's directory is made.")  # fmt: skip
@data_plane_option
@click.option("--keep", is_flag=True, help="Leave the lab up at the end.")
@output_option
def command(
    file: Path, hosts: tuple[str, ...], repeat: int, storage: bool, no_encrypt: bool, runs: Path,
    data_plane: str | None, keep: bool, output: str,
) -> None:  # fmt: skip
    """Bring FILE up (a topology with baseline: ip), migrate its guest over XIA and by libvirt's own migration
    over TCP, with a client on each, and show both side by side.

    Ends with 3 when the guest does not live on, or a connection breaks that should not: over TCP between ADs
    it does, which is part of the result.

    Example: xiatb baseline topologies/baseline.yaml --with-storage --repeat 5
    """
    plan = read_plan(file, None, None, data_plane)
    baseline_of(plan)  # before a lab is made in vain
    quiet = output == "json"
    with lab_of_a_run(plan, runs, keep=keep, quiet=quiet) as directory:
        run = BaselineRun(plan, directory, HostRunner(), sayer(quiet), lambda e: follow(e, quiet=quiet))
        samples = run.run(hosts, repeat, {"encrypt": not no_encrypt}, storage)
    _show(samples, directory, quiet)


def _show(samples: list[Sample], directory: RunDirectory, quiet: bool) -> None:
    problems = failures(samples)
    if quiet:
        print_json({
            "run": str(directory.path), "verified": not problems, "failures": problems,
            "legs": compare(samples), "samples": [to_json(sample) for sample in samples],
        })  # fmt: skip
    else:
        for leg in compare(samples):
            kind = "same AD" if leg["same_ad"] else "to another AD"
            click.echo(f"\n{leg['from']} -> {leg['to']} ({kind})")
            print_table(["", "over XIA", "over TCP/IP", "XIA/TCP"], table(leg))
        click.echo(f"results: {directory.path}/result.json")
    if problems:
        raise CheckFailedError("; ".join(problems))
