"""Compiles xip.bpf.c and batch.c by clang: `python -m xiatb.fastpath.build`.

Set-up and tests do so, nodes never.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from pathlib import Path

from xiatb.fastpath.batch import LIBRARY_PATH
from xiatb.fastpath.engine import OBJECT_PATH
from xiatb.fastpath.errors import FastpathError

SOURCE_PATH = Path(__file__).with_name("xip.bpf.c")
BATCH_SOURCE_PATH = Path(__file__).with_name("batch.c")


def is_fresh(target: Path = OBJECT_PATH, source: Path = SOURCE_PATH) -> bool:
    """Whether the object is there and not older than its source."""
    return target.is_file() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns


def compile_object(target: Path = OBJECT_PATH, source: Path = SOURCE_PATH) -> None:
    """Writes the eBPF object in one go (debug information but BTF is stripped where llvm-strip is there).

    Raises FastpathError with the compiler's words.
    """
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    flags = ["-O2", "-g", "-Wall", "-target", "bpf", f"-I{include}", "-c"]
    _compile(flags, source, target, strip=True)


def compile_batch(target: Path = LIBRARY_PATH, source: Path = BATCH_SOURCE_PATH) -> None:
    """Writes the shared library of batch.c in one go. Raises FastpathError with the compiler's words."""
    _compile(["-O2", "-Wall", "-Wextra", "-shared", "-fPIC"], source, target, strip=False)


def _compile(flags: list[str], source: Path, target: Path, *, strip: bool) -> None:
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        _run(["clang", *flags, str(source), "-o", str(scratch)])
        if strip:
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
    """Compiles what is not fresh; returns the exit code."""
    try:
        if not is_fresh():
            compile_object()
        if not is_fresh(LIBRARY_PATH, BATCH_SOURCE_PATH):
            compile_batch()
    except FastpathError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
