"""`xiatb capture`: write the frames at a node's ports to a pcapng file."""

from __future__ import annotations

from pathlib import Path

import click

from xiatb.cli.labs import choose_lab, lab_option, require_root
from xiatb.cli.output import output_option, print_json
from xiatb.errors import UsageError
from xiatb.lab.capture import Capture, split_target
from xiatb.lab.state import read_plan, read_state
from xiatb.lab.units import any_duration


@click.command(short_help="Capture frames of a node to a pcapng file.")
@lab_option
@click.argument("target", metavar="NODE[:PORT]")
@click.option(
    "-w", "--write", "file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The file."
)
@click.option("-c", "--count", type=click.IntRange(1), help="Stop after this many frames.")
@click.option("--snaplen", type=click.IntRange(64, 262144), help="Keep this many bytes of a frame.")
@click.option("--duration", metavar="DURATION", help="Stop after this long; default: until Ctrl-C.")
@output_option
def command(
    target: str,
    lab: str | None,
    file: Path,
    count: int | None,
    snaplen: int | None,
    duration: str | None,
    output: str,
) -> None:
    """Capture at one PORT of NODE, or at all of them, until Ctrl-C.

    Guests: capture at the tap of their hypervisor, such as hv1:tap0.

    Example: xiatb capture r1:eth9 -w inter-ad.pcapng --duration 20s
    """
    paths = choose_lab(lab)
    plan = read_plan(paths)
    node, ports = split_target(plan, target)
    require_root()
    capture = Capture(
        plan, node, ports, file, snaplen=snaplen or 0, duration=_seconds(duration), count=count or 0
    )
    capture.open(read_state(paths))
    if output == "text":
        click.echo(f"capturing at {node}:{','.join(ports)} into {file}; Ctrl-C stops", err=True)
    try:
        while not capture.finished(3600):
            pass
    except KeyboardInterrupt:
        click.echo("", err=True)
    result = capture.stop()
    if output == "json":
        print_json(result)
    else:
        click.echo(f"{result['packets']} frames, {result['dropped']} dropped, in {file}")


def _seconds(text: str | None) -> float:
    try:
        return any_duration(text) / 1e9 if text else 0
    except ValueError as error:
        raise UsageError(f"--duration: {error}") from error
