"""How verbs print: tables for people, aligned text when piped, JSON with -o json."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format.",
)

_STYLES = {
    "up": "green",
    "joined": "green",
    "running": "green",
    "dead": "bold red",
    "degraded": "yellow",
    "silent": "red",
    "not joined": "yellow",
    "starting": "yellow",
}


def print_json(data: Any) -> None:
    """Stable keys, two spaces of indent."""
    click.echo(json.dumps(data, indent=2, sort_keys=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A frame on a terminal, plain columns in a pipe. None is shown as "-"."""
    texts = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(box=box.ROUNDED, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in texts:
            table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(*[[*columns], *texts], strict=True)]
    for row in [list(columns), *texts]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def short_xid(text: str | None) -> str | None:
    """ "HID:0123456789..." -> "HID:01234567": enough to tell them apart on a screen."""
    if not text or ":" not in text:
        return text
    kind, _, digits = text.partition(":")
    return f"{kind}:{digits[:8]}"
