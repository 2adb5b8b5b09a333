"""Compiles xip.bpf.c by clang: `python -m xiatb.fastpath.build`. Set-up and tests do so, nodes never."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from pathlib import Path

from xiatb.fastpath.engine import OBJECT_PATH
from xiatb.fastpath.errors import FastpathError

SOURCE_PATH = Path(__file__).with_name("xip.bpf.c")


def is_fresh(target: Path = OBJECT_PATH) -> bool:
    """Whether the object is there and not older than its source."""
    return target.is_file() and target.stat().st_mtime_ns >= SOURCE_PATH.stat().st_mtime_ns


def compile_object(target: Path = OBJECT_PATH, source: Path = SOURCE_PATH) -> None:
    """Writes the object file in one go (debug information but BTF is stripped where llvm-strip is there).

    Raises FastpathError with the compiler's words.
    """
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    compiler = ["clang", "-O2", "-g", "-Wall", "-target", "bpf", f"-I{include}"]
    try:
        _run([*compiler, "-c", str(source), "-o", str(scratch)])
        with contextlib.suppress(FileNotFoundError):
            _run(["llvm-strip", "-g", str(scratch)])
        scratch.replace(target)
    except FileNotFoundError as error:
        raise FastpathError("clang is missing", hint="scripts/setup installs it") from error
    finally:
        scratch.unlink(missing_ok=True)


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise FastpathError(f"{argv[0]} failed: {done.stderr.strip()}")


def main() -> int:
    """Compiles unless the object is fresh; returns the exit code."""
    try:
        if not is_fresh():
            compile_object()
    except FastpathError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
