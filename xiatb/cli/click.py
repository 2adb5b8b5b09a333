"""`xiatb click`: check, flatten, draw and try Click configurations."""

from __future__ import annotations

from pathlib import Path

import click

from xiatb.cli.output import output_option, print_json
from xiatb.click import drawing
from xiatb.click.args import to_seconds
from xiatb.click.errors import ConfigError
from xiatb.click.graph import Router
from xiatb.click.simulation import SimulatedContext
from xiatb.errors import InvalidFileError, UsageError

library_option = click.option(
    "-L",
    "--library",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Directory where require(library ...) looks first; may be given more than once.",
)
file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.group("click")
def command() -> None:
    """Check, flatten, draw and try Click configurations. See docs/click.md for the language.

    Example: xiatb click check click_configs/examples/xia_local_topology.click
    """


@command.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@library_option
@output_option
def check(files: tuple[Path, ...], library: tuple[Path, ...], output: str) -> None:
    """Report every error of configurations: syntax, classes, arguments, ports, push and pull.

    Example: xiatb click check click_configs/examples/xia_local_topology.click
    """
    results, problems = [], []
    for file in files:
        try:
            router = Router.from_file(file, list(library))
        except InvalidFileError as error:
            problems += error.problems or [error.message]
            continue
        results.append(
            {"file": str(file), "elements": len(router.elements), "connections": len(router.flat.connections)}
        )
    if problems:
        count = len(problems)
        raise InvalidFileError(f"{count} error{'' if count == 1 else 's'} in {_names(files)}", problems)
    if output == "json":
        print_json(results)
        return
    for result in results:
        click.echo(
            f"{result['file']}: ok, {result['elements']} elements, {result['connections']} connections"
        )


def _names(files: tuple[Path, ...]) -> str:
    return str(files[0]) if len(files) == 1 else f"{len(files)} files"


@command.command("flatten")
@file_argument
@library_option
def flatten(file: Path, library: tuple[Path, ...]) -> None:
    """Print a configuration with its compound elements expanded.

    Example: xiatb click flatten click_configs/examples/xia_local_topology.click
    """
    click.echo(Router.from_file(file, list(library)).flat.to_text(), nl=False)


@command.command("graph")
@file_argument
@library_option
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["ascii", "dot", "mermaid"]),
    default="ascii",
    show_default=True,
    help="Kind of picture. Dashed lines (~> in ascii) are pulled.",
)
@output_option
def graph(file: Path, library: tuple[Path, ...], form: str, output: str) -> None:
    """Draw the element graph of a configuration.

    Example: xiatb click graph -f dot click_configs/examples/xia_local_topology.click
    """
    router = Router.from_file(file, list(library))
    if not router.elements:
        click.echo(f"{file}: no elements of its own: it defines compounds for other files", err=True)
    if output == "json":
        print_json(drawing.data(router))
        return
    draw = {"ascii": drawing.ascii_text, "dot": drawing.dot, "mermaid": drawing.mermaid}[form]
    click.echo(draw(router), nl=False)


@command.command("run")
@file_argument
@library_option
@click.option("-t", "--time", "duration", default="1s", show_default=True, help="Virtual time to run for.")
@click.option("-r", "--read", "reads", multiple=True, help="Handler to print at the end, ELEMENT.HANDLER.")
@click.option("-w", "--write", "writes", multiple=True, help="Handler to write first, ELEMENT.HANDLER=VALUE.")
@click.option("--seed", default=1, show_default=True, help="Seed of the random numbers.")
def run(
    file: Path,
    library: tuple[Path, ...],
    duration: str,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    seed: int,
) -> None:
    """Run a configuration in virtual time, without a node; its ports lead nowhere. The log is printed.

    Example: xiatb click run click_configs/examples/xia_local_topology.click -t 250ms -r ping.received
    """
    try:
        seconds = to_seconds(duration)
    except ConfigError as error:
        raise UsageError(error.message) from None
    router = Router.from_file(file, list(library))
    ctx = SimulatedContext(lambda now, msg: click.echo(f"{now:10.6f} {msg}"), seed)
    router.initialize(ctx)
    try:
        for text in writes:
            handler, _, value = text.partition("=")
            router.write(handler, value)
        ctx.advance(seconds)
        for handler in reads:
            value = router.read(handler)
            listed = value.endswith("\n")
            click.echo(f"{handler}:\n{value}" if listed else f"{handler}: {value}", nl=not listed)
    finally:
        router.cleanup()
