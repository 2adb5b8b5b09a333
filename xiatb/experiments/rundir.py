"""The directory of one run, `runs/<lab>/<UTC time>-<id>/`, and its manifest.

The manifest says what is needed to judge or repeat a run: topology, seed, versions, kernel,
accelerator, shaping backend, load of the host and the commands that were used.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from xiatb import __version__
from xiatb.lab.runner import Runner

_PACKAGES = ("click", "cryptography", "pydantic", "pyroute2", "scapy", "matplotlib")
_PROGRAMS = {
    "qemu": ["qemu-system-x86_64", "--version"],
    "libvirtd": ["libvirtd", "--version"],
    "dumpcap": ["dumpcap", "--version"],
    "tc": ["tc", "-V"],
}


def versions(runner: Runner) -> dict[str, str]:
    """Versions of xiatb, Python, the kernel, the packages and the programs that take part in a run."""
    found = {"xiatb": __version__, "python": platform.python_version(), "kernel": platform.release()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    for name, argv in _PROGRAMS.items():
        if shutil.which(argv[0]) is None:
            found[name] = "absent"
            continue
        result = runner.run(argv, check=False, timeout=20)
        found[name] = result.stdout.splitlines()[0].strip() if result.stdout else "unknown"
    return found


@dataclass(frozen=True)
class RunDirectory:
    """A directory that holds all that one run left behind."""

    path: Path

    @classmethod
    def create(cls, lab: str, base: Path) -> RunDirectory:
        """Make `base/<lab>/<UTC time>-<id>/`; with sudo it belongs to the user who called sudo."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = base.absolute() / lab / f"{stamp}-{secrets.token_hex(3)}"
        path.mkdir(parents=True)
        return cls(path)

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` as indented JSON to the file `name`; returns its path."""
        target = self.path / name
        target.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")
        return target

    def hand_over(self) -> None:
        """Give the directory, and the new parents of it, to the user behind sudo, if there is one."""
        uid, gid = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
        if not (uid and gid and uid.isdigit() and gid.isdigit()):
            return
        for entry in [self.path.parent.parent, self.path.parent, self.path, *self.path.rglob("*")]:
            os.chown(entry, int(uid), int(gid))
