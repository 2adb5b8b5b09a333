"""Progress of `xiatb up` and `down` on standard error: a bar on a terminal, lines in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class UpProgress:
    """Shows step and progress events of a supervisor."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._quiet = quiet
        self._begin = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._title = title

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[detail]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None, detail="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def event(self, event: dict[str, Any]) -> None:
        """One event of the supervisor."""
        kind = event["event"]
        if kind == "step":
            self._show(event["title"], "", event["number"], event["of"])
        elif kind == "rollback":
            self._show("rolling back", "", None, None)
        elif kind == "progress":
            self._detail(event["message"])

    def say(self, message: str) -> None:
        """A line that is not an event (used by `down`)."""
        self._detail(message)

    def _show(self, title: str, detail: str, number: int | None, total: int | None) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=title, detail=detail, completed=number or 0, total=total)
        elif not self._quiet:
            click.echo(f"[{time.monotonic() - self._begin:6.1f} s] {title}", err=True)

    def _detail(self, message: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, detail=message)
