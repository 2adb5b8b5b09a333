"""`xiatb image`: build the guest image ahead of time, show what there is."""

from __future__ import annotations

import json
import time

import click

from xiatb.errors import XiatbError
from xiatb.guests import image, ready


@click.group("image", short_help="Build or show the guest image.")
def command() -> None:
    """The guest image: a small Debian system with xiatb's node stack and agent.

    Example: xiatb image show
    """


def _facts(found: image.Image) -> dict[str, object]:
    return {
        "id": found.id,
        "directory": str(found.directory),
        "kernel": found.manifest["kernel"],
        "disk_bytes": found.manifest["disk_bytes"],
        "allocated_bytes": found.manifest["allocated_bytes"],
        "packages": len(found.manifest["packages"].split(", ")),
        "base": found.manifest["base"],
    }


def _show(found: image.Image, output: str) -> None:
    facts = _facts(found)
    if output == "json":
        click.echo(json.dumps(facts, indent=1))
        return
    click.echo(f"image      {facts['id']}  ({facts['directory']})")
    click.echo(f"kernel     {facts['kernel']}, {facts['packages']} Debian packages")
    allocated, size = found.manifest["allocated_bytes"], found.manifest["disk_bytes"]
    click.echo(f"root disk  {allocated / 1e6:.1f} MB of {size >> 20} MiB")


_FORMS = click.Choice(["text", "json"])
_output = click.option("-o", "--output", type=_FORMS, default="text", help="Form of the output.")


@command.command("build")
@click.option("--force", is_flag=True, help="Build again although the cached image is current.")
@_output
def build(force: bool, output: str) -> None:
    """Build the image for the present code unless it is there already; probe KVM and libvirt's QEMU.

    Example: xiatb image build
    """
    started = time.monotonic()

    def progress(message: str) -> None:
        click.echo(f"{time.monotonic() - started:6.1f} s  {message}", err=True)

    found = image.build(progress, force=force)
    ready.probe(progress)
    _show(found, output)


@command.command("show")
@_output
def show(output: str) -> None:
    """Show the image for the present code; exit 1 when it must be built first.

    Example: xiatb image show -o json
    """
    found = image.find()
    if found is None:
        raise XiatbError("there is no guest image for the present code", hint="run: xiatb image build")
    _show(found, output)
