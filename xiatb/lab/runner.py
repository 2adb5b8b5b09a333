"""How the lab runs commands of the host: argv lists through one injected object, so that tests can record
them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from xiatb.errors import DeadlineError, HostNotAbleError, XiatbError


@dataclass(frozen=True)
class Result:
    """What a finished command left: its argv, exit code and decoded output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str = ""
    stderr: str = ""


class CommandError(XiatbError):
    """A command of the host failed; the message holds its argv, exit code and last words."""


class Runner(Protocol):
    """Runs commands of the host."""

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002
        timeout: float = 30.0,
        check: bool = True,
        netns: str | None = None,
    ) -> Result:
        """Run `argv` to its end. `netns` is a name under /run/netns. Raises CommandError when `check` and
        the exit code is not 0, DeadlineError after `timeout` seconds, HostNotAbleError when the program is
        missing."""


class HostRunner:
    """Runs commands for real."""

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002
        timeout: float = 30.0,
        check: bool = True,
        netns: str | None = None,
    ) -> Result:
        """See `Runner.run`."""
        full = [*_netns_prefix(netns), *argv]
        try:
            done = subprocess.run(
                full,
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise HostNotAbleError(f"{full[0]}: no such program", hint="run scripts/setup") from error
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"{' '.join(full)}: not done after {timeout:g} s") from error
        result = Result(tuple(full), done.returncode, done.stdout, done.stderr)
        if check and result.returncode != 0:
            words = (result.stderr or result.stdout).strip().splitlines()
            raise CommandError(
                f"{' '.join(full)}: exit {result.returncode}: {words[-1] if words else 'no output'}"
            )
        return result


@dataclass
class RecordingRunner:
    """For tests: records every argv, answers from `answers` (longest matching prefix), else with success."""

    answers: dict[tuple[str, ...], Result] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,  # noqa: A002
        timeout: float = 30.0,
        check: bool = True,
        netns: str | None = None,
    ) -> Result:
        """See `Runner.run`."""
        full = (*_netns_prefix(netns), *argv)
        self.calls.append(full)
        matches = [prefix for prefix in self.answers if full[: len(prefix)] == prefix]
        result = self.answers[max(matches, key=len)] if matches else Result(full, 0)
        if check and result.returncode != 0:
            raise CommandError(f"{' '.join(full)}: exit {result.returncode}: {result.stderr}")
        return result


def _netns_prefix(netns: str | None) -> list[str]:
    return ["nsenter", f"--net={Path('/run/netns') / netns}", "--"] if netns else []
