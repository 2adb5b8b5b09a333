"""`xiatb run`: a scenario, from bringing its lab up to its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xiatb.cli.output import output_option, print_json, print_table
from xiatb.cli.starting import lab_of_a_run, sayer
from xiatb.cli.topology import data_plane_option
from xiatb.errors import UsageError
from xiatb.experiments.scenario.reading import Scenario, read_scenario
from xiatb.experiments.scenario.running import Outcome, Run, verdict
from xiatb.experiments.scenario.schema import MAX_REPEAT
from xiatb.lab.plan import Plan
from xiatb.lab.runner import HostRunner
from xiatb.lab.topology import check_name


@click.command(short_help="Do a scenario in a lab of its own; check it.")
@click.argument("file", metavar="SCENARIO", type=click.Path(path_type=Path))
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="A variable; can be repeated.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the file's seed.")
@click.option("--repeat", type=click.IntRange(1, MAX_REPEAT), help="Runs, each in a lab with the next seed.")
@click.option("-n", "--name", "lab", metavar="NAME", help="Instead of the topology's lab name.")
@data_plane_option
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Where the directories of the runs are made.")  # fmt: skip
@click.option("--check", is_flag=True, help="Only read the files and say what is wrong with them.")
@click.option("--keep", is_flag=True, help="Leave the lab up at the end; not with several runs.")
@output_option
def command(
    file: Path,
    settings: tuple[str, ...],
    seed: int | None,
    repeat: int | None,
    lab: str | None,
    data_plane: str | None,
    runs: Path,
    check: bool,
    keep: bool,
    output: str,
) -> None:
    """Bring up the lab of SCENARIO, do its steps, check what they gave, take it down.

    Ends with 3 when a check failed, with 1 or 124 when a step did. All that happened is in RUNS/<lab>/<id>/.

    Example: xiatb run scenarios/link-failure.yaml --set delay=5ms --repeat 3
    """
    scenario = read_scenario(file, settings)
    if lab is not None and (reason := check_name(lab)):
        raise UsageError(f"--name: {reason}")
    count = repeat or scenario.file.repeat
    if keep and count > 1:
        raise UsageError("--keep with several runs", hint="--repeat 1")
    plans = [scenario.plan(run, lab=lab, seed=seed, data_plane=data_plane) for run in range(count)]
    if check:
        click.echo(f"{file}: {len(scenario.file.steps)} steps in lab {plans[0].lab}, ok")
        return
    done: list[tuple[Outcome, Path]] = []
    for plan in plans:
        done.append(_run(scenario, plan, runs, keep=keep, quiet=output == "json"))
        if done[-1][0].error is not None:
            break
    _show(scenario, done, output)
    if (error := verdict([outcome for outcome, _ in done])) is not None:
        raise error


def _run(scenario: Scenario, plan: Plan, runs: Path, *, keep: bool, quiet: bool) -> tuple[Outcome, Path]:
    with lab_of_a_run(plan, runs, keep=keep, quiet=quiet) as directory:
        return Run(scenario, plan, directory, sayer(quiet)).run(HostRunner()), directory.path


def _show(scenario: Scenario, done: list[tuple[Outcome, Path]], output: str) -> None:
    if output == "json":
        runs: list[dict[str, Any]] = [{"run": str(path), **outcome.to_json()} for outcome, path in done]
        passed = all(outcome.passed for outcome, _ in done)
        print_json({"scenario": scenario.name, "passed": passed, "runs": runs})
        return
    rows = []
    for outcome, path in done:
        checks = [check for step in outcome.steps for check in step["checks"]]
        holding = sum(check["holds"] for check in checks)
        state = "ok" if outcome.passed else "FAILED"
        rows.append([state, outcome.seed, f"{holding} of {len(checks)}", path])
    print_table(["run", "seed", "checks", "directory"], rows)
