"""Lines on a child's pipe, waited for with a deadline that names what is missing."""

from __future__ import annotations

import os
import select
import time
from typing import IO, Any

PATIENCE_S = 60.0


def next_line(stream: IO[Any] | None, seconds: float = PATIENCE_S) -> str:
    """The next line without its end, octet by octet past the stream's own buffer, so that the rest stays for
    `communicate`. AssertionError when there is none within so many seconds, or the pipe is closed first."""
    assert stream is not None
    deadline = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise AssertionError(f"no line within {seconds:g} s, only {line!r}")
        octet = os.read(stream.fileno(), 1)
        if not octet:
            raise AssertionError(f"the pipe was closed after {line!r}")
        line += octet
    return line[:-1].decode(errors="replace")


def until_line(stream: IO[Any] | None, words: str, seconds: float = PATIENCE_S) -> str:
    """The next line that has `words` in it. AssertionError with the lines that came instead."""
    deadline = time.monotonic() + seconds
    seen: list[str] = []
    while True:
        try:
            line = next_line(stream, max(0.0, deadline - time.monotonic()))
        except AssertionError as error:
            raise AssertionError(f"no line with {words!r} ({error}), but {seen}") from None
        if words in line:
            return line
        seen.append(line)
