"""The agent's operations that need no service: clocks, files, commands, power.

Each is `async def op(message) -> result`; a wrong argument raises ValueError, a failing system call
OSError. Long work runs in a thread or a child process so that the agent keeps answering.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from xiatb.guests.agent.niceness import become_load
from xiatb.guests.agent.pattern import file_pieces
from xiatb.guests.agent.protocol import Message

MAX_OUTPUT = 24 * 1024
"""Bytes kept of each output stream of a command: base64 of two such fit one message."""
MAX_FILE = 1 << 30
MAX_TIMEOUT = 3600.0
MAX_SIGNED = 1024
"""Longest text that the host may want signed."""
SIGN_DEADLINE = 5.0
_PIECE = 256 * 1024
_ENVIRONMENT_TOP = 64


def boot_id() -> str:
    """The kernel's random id of this boot: a guest that was restarted has another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


async def uptime(message: Message) -> Message:
    """CLOCK_MONOTONIC in ns, wall clock in ns, boot id."""
    return {"monotonic_ns": time.monotonic_ns(), "wall_ns": time.time_ns(), "boot_id": boot_id()}


def _text(message: Message, key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{key} must be a text without NUL")
    return value


def _whole(message: Message, key: str, top: int) -> int:
    value = message.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= top:
        raise ValueError(f"{key} must be a whole number from 0 to {top}")
    return value


def _checksum(path: str, from_disk: bool) -> Message:
    total, size = hashlib.sha256(), 0
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if from_disk:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := os.read(fd, _PIECE):
            total.update(piece)
            size += len(piece)
    finally:
        os.close(fd)
    return {"path": path, "size": size, "sha256": total.hexdigest()}


async def checksum(message: Message) -> Message:
    """SHA-256 of the file `path`; unless `cached` is true its clean pages leave the page cache first,
    so that the bytes come from the disk."""
    path = _text(message, "path")
    return await asyncio.get_running_loop().run_in_executor(None, _checksum, path, not message.get("cached"))


def _write_file(path: str, size: int, seed: int) -> Message:
    total = hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        for piece in file_pieces(seed, size):
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
            total.update(piece)
        os.fsync(fd)
    finally:
        os.close(fd)
    return {"path": path, "size": size, "seed": seed, "sha256": total.hexdigest()}


async def write_file(message: Message) -> Message:
    """Writes `size` bytes of the pattern `seed` to `path` and flushes; the digest is of what was written."""
    arguments = _text(message, "path"), _whole(message, "size", MAX_FILE), _whole(message, "seed", 0xFFFFFFFF)
    return await asyncio.get_running_loop().run_in_executor(None, _write_file, *arguments)


def argv_of(message: Message) -> Sequence[str]:
    """The checked `argv` of a request; raises ValueError."""
    argv = message.get("argv")
    if (
        not isinstance(argv, list)
        or not argv
        or not all(isinstance(word, str) and "\0" not in word for word in argv)
    ):
        raise ValueError("argv must be a non-empty list of texts")
    return argv


def environment_of(message: Message, extra: dict[str, str]) -> dict[str, str]:
    """The agent's environment with `extra` and the checked `env` of a request; raises ValueError."""
    given = message.get("env") or {}
    if not isinstance(given, dict) or len(given) > _ENVIRONMENT_TOP:
        raise ValueError("env must be an object of texts")
    return {**os.environ, **extra, **{str(key): str(value) for key, value in given.items()}}


async def _bounded(stream: asyncio.StreamReader) -> tuple[bytes, bool]:
    kept, cut = bytearray(), False
    while piece := await stream.read(4096):
        room = MAX_OUTPUT - len(kept)
        cut = cut or len(piece) > room
        kept += piece[:room]
    return bytes(kept), cut


async def execute(message: Message, extra: dict[str, str]) -> Message:
    """Runs `argv` (optional `env`, `timeout` in s): exit code (128 + signal when killed), both outputs in
    base64, each cut after MAX_OUTPUT bytes. `extra` is added to the environment."""
    argv, environment = argv_of(message), environment_of(message, extra)
    timeout = min(float(message.get("timeout") or 60.0), MAX_TIMEOUT)
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=become_load,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    timed_out = False
    outputs: Sequence[tuple[bytes, bool]]
    try:
        outputs = await asyncio.wait_for(
            asyncio.gather(_bounded(process.stdout), _bounded(process.stderr)), timeout
        )
        code = await process.wait()
    except TimeoutError:
        timed_out, outputs = True, [(b"", False), (b"", False)]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        code = await process.wait()
    (stdout, cut_out), (stderr, cut_err) = outputs
    return {
        "code": 124 if timed_out else (code if code >= 0 else 128 - code),
        "timed_out": timed_out,
        "stdout": base64.b64encode(stdout).decode("ascii"),
        "stderr": base64.b64encode(stderr).decode("ascii"),
        "cut": cut_out or cut_err,
    }


def _root_is_read_only() -> bool:
    for line in Path("/proc/mounts").read_text(encoding="ascii", errors="replace").splitlines():
        fields = line.split()
        if fields[1] == "/":
            return "ro" in fields[3].split(",")
    return True


def power_off(patience: float = 3.0) -> None:
    """Flushes the disks, mounts them read-only (sysrq u, which works in the background: waited for
    `patience` seconds at most) and switches the machine off (sysrq o)."""
    os.sync()
    trigger = Path("/proc/sysrq-trigger")
    trigger.write_text("u", encoding="ascii")
    end = time.monotonic() + patience
    while not _root_is_read_only() and time.monotonic() < end:
        time.sleep(0.01)
    trigger.write_text("o", encoding="ascii")


async def sign(message: Message) -> Message:
    """What the guest's node signs with the key of its HID for a move: `delegate` answers the `invite` of a
    router, `consent` names a `destination`. The node proves what it is given; raises XiatbError."""
    from xiatb.node import stack  # there already, but not for the tests' agent

    op = _text(message, "op")
    name = "invite" if op == "delegate" else "destination"
    value = _text(message, name)
    if len(value) > MAX_SIGNED:
        raise ValueError(f"{name} is too long")
    return dict(await asyncio.wait_for(stack.default().request(op, **{name: value}), SIGN_DEADLINE))
