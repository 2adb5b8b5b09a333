"""What a daemon has made for jobs under way, on disk, so that the next one cleans up after a crash.

One JSON file per job in the daemon's state directory, written before the files that it names are made.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("xiatb.migration")


@dataclass(frozen=True)
class Entry:
    """Files of one job: `disks` go only if `guest` is not here, `sockets` always. Disks are empty at a
    source."""

    job: str
    guest: str
    disks: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()


class Ledger:
    """The entries of one daemon, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, entry: Entry) -> None:
        """Note what is about to be made; raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(entry.job)
        partial = path.with_suffix(".partial")
        partial.write_text(
            json.dumps({"guest": entry.guest, "disks": entry.disks, "sockets": entry.sockets}) + "\n"
        )
        partial.replace(path)

    def close(self, job: str) -> None:
        """The job is over and has cleaned up."""
        self._path(job).unlink(missing_ok=True)

    def left(self) -> list[Entry]:
        """Entries of jobs that never ended; a damaged one is dropped."""
        found = []
        for path in sorted(self._directory.glob("job-*.json")):
            try:
                data = json.loads(path.read_text())
                entry = Entry(
                    path.stem.removeprefix("job-"),
                    str(data["guest"]),
                    tuple(map(str, data["disks"])),
                    tuple(map(str, data["sockets"])),
                )
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("%s: %s", path, error)
                path.unlink(missing_ok=True)
                continue
            found.append(entry)
        return found

    def sweep(self, entry: Entry, *, guest_here: bool) -> tuple[str, ...]:
        """Remove what a job left; disks stay when the guest is here. Gives the removed paths."""
        paths = [*entry.sockets, *(() if guest_here else entry.disks)]
        removed = []
        for path in map(Path, paths):
            if path.exists():
                path.unlink(missing_ok=True)
                removed.append(str(path))
        self.close(entry.job)
        return tuple(removed)

    def _path(self, job: str) -> Path:
        return self._directory / f"job-{job}.json"
