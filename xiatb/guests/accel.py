"""Finds out whether KVM works here by booting a boot sector with it.

`/dev/kvm` may open and even create machines that then make no progress (design.md section 5), so
the probe really runs code: 512 bytes that write to QEMU's isa-debug-exit port, which ends QEMU with
exit code (value << 1) | 1. The answer is kept per boot of this host in /var/lib/xiatb/accel.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from xiatb.errors import HostNotAbleError

CACHE = Path("/var/lib/xiatb/accel.json")
DEADLINE = 3.0
QEMU = "qemu-system-x86_64"
_VALUE = 0x2A
_PORT = 0xF4
BOOT_SECTOR = bytes([0xB0, _VALUE, 0xBA, _PORT, 0x00, 0xEE, 0xF4, 0xEB, 0xFD]).ljust(510, b"\0") + b"\x55\xaa"
"""mov al, 0x2a; mov dx, 0xf4; out dx, al; hlt; jmp back to hlt; boot signature."""


@dataclass(frozen=True)
class Probe:
    """What a probe found: does KVM run code, why not, how long it took, in which boot of the host."""

    kvm: bool
    reason: str
    seconds: float
    boot_id: str


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def probe_argv(accel: str, image: Path) -> list[str]:
    """The QEMU command that boots the sector in `image` with `accel`."""
    argv = [QEMU, "-accel", accel, "-machine", "pc", "-m", "16", "-nodefaults", "-no-user-config"]
    argv += ["-display", "none", "-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=1"]
    return [*argv, "-drive", f"file={image},format=raw,if=ide,snapshot=on"]


def boots(accel: str, deadline: float = DEADLINE, more: Sequence[str] = ()) -> tuple[bool, str]:
    """Whether the boot sector runs under `accel` within `deadline` seconds, and if not why not; `more`:
    further arguments for QEMU."""
    with tempfile.NamedTemporaryFile(prefix="xiatb-probe-", suffix=".img") as image:
        image.write(BOOT_SECTOR)
        image.flush()
        try:
            done = subprocess.run(
                [*probe_argv(accel, Path(image.name)), *more],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=deadline,
                check=False,
            )
        except FileNotFoundError as error:
            raise HostNotAbleError(f"{QEMU} is not installed", hint="run scripts/setup") from error
        except subprocess.TimeoutExpired:
            return False, f"a boot sector made no progress in {deadline:g} s"
    if done.returncode == (_VALUE << 1) | 1:
        return True, ""
    words = done.stderr.strip().splitlines()
    return False, words[-1] if words else f"{QEMU} ended with {done.returncode}"


def _cached(cache: Path, boot: str) -> Probe | None:
    try:
        probe = Probe(**json.loads(cache.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return probe if probe.boot_id == boot else None


def probe_kvm(cache: Path = CACHE) -> Probe:
    """The probe's answer for this boot of the host, from the cache when there is one."""
    boot = _boot_id()
    known = _cached(cache, boot)
    if known is not None:
        return known
    started = time.monotonic()
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        works, reason = boots("kvm")
    else:
        works, reason = False, "/dev/kvm is missing or not accessible"
    found = Probe(works, reason, round(time.monotonic() - started, 3), boot)
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
        fresh.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
        fresh.replace(cache)
    return found


def choose(wanted: str, cache: Path = CACHE) -> str:
    """ "kvm" or "tcg" for `wanted` = auto|kvm|tcg. Raises HostNotAbleError when KVM is demanded in vain."""
    if wanted == "tcg":
        return "tcg"
    found = probe_kvm(cache)
    if wanted == "kvm" and not found.kvm:
        raise HostNotAbleError(
            f"KVM does not work here: {found.reason}", hint="use accel: auto or accel: tcg"
        )
    return "kvm" if found.kvm else "tcg"
