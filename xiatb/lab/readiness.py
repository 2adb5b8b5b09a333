"""Waiting for processes to say that they are ready: a pipe, a deadline, and what is missing by name."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from xiatb.errors import DeadlineError, XiatbError
from xiatb.lab.context import Child, last_words

READY_FD = "XIATB_READY_FD"


class ReadyPipe:
    """The read end of a pipe whose write end a child gets as XIATB_READY_FD; it writes one JSON line
    there."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        self._data = b""

    def environment(self) -> dict[str, str]:
        """For the child; `writer` must be in its pass_fds."""
        return {READY_FD: str(self.writer)}

    def close_writer(self) -> None:
        """After the child was started. A second call does nothing (the number may be another file by
        then)."""
        writer, self.writer = self.writer, -1
        if writer >= 0:
            os.close(writer)

    def close(self) -> None:
        """Both ends."""
        self.close_writer()
        reader, self.reader = self.reader, -1
        if reader >= 0:
            os.close(reader)

    def wait(
        self, child: Child, what: str, log: Path, deadline: float
    ) -> dict[str, object]:
        """The child's ready message. Raises XiatbError when it ends first, DeadlineError at the `deadline`
        (monotonic seconds); both quote its log."""
        while b"\n" not in self._data:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.reader], [], [], left)[0]:
                hint = f"see {log}"
                raise DeadlineError(f"{what} did not become ready in time: {last_words(log)}", hint=hint)
            data = os.read(self.reader, 4096)
            if not data:
                code = _code(child)
                raise XiatbError(
                    f"{what} ended before it was ready ({code}): {last_words(log)}", hint=f"see {log}"
                )
            self._data += data
        try:
            message = json.loads(self._data.split(b"\n")[0])
        except ValueError as error:
            raise XiatbError(f"{what} said nonsense instead of being ready: {self._data[:100]!r}") from error
        if not isinstance(message, dict) or message.get("ready") is not True:
            raise XiatbError(f"{what} cannot start: {message}", hint=f"see {log}")
        return message


@contextlib.contextmanager
def ready_pipe() -> Iterator[ReadyPipe]:
    """A pipe that is closed at the end whatever happens."""
    pipe = ReadyPipe()
    try:
        yield pipe
    finally:
        pipe.close()


def _code(child: Child) -> str:
    try:
        number = child.wait(2.0)
    except subprocess.TimeoutExpired:
        return "closed its pipe"
    return f"exit {number}" if number >= 0 else f"signal {-number}"
