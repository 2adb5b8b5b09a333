"""`xiatb version`: versions of xiatb and of what it stands on."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess

import click

from xiatb.cli.output import output_option, print_json

_PROGRAMS = {
    "qemu": ["qemu-system-x86_64", "--version"],
    "libvirt": ["libvirtd", "--version"],
    "tc": ["tc", "-V"],
}


@click.command()
@output_option
def command(output: str) -> None:
    """Print the versions of xiatb, Python, the kernel, QEMU, libvirt and tc.

    Example: xiatb version
    """
    versions = {
        "xiatb": importlib.metadata.version("xiatb"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        **{name: _ask(argv) for name, argv in _PROGRAMS.items()},
    }
    if output == "json":
        print_json(versions)
    else:
        for name, version in versions.items():
            click.echo(f"{name:8} {version}")


def _ask(argv: list[str]) -> str:
    if shutil.which(argv[0]) is None:
        return "not installed"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"
