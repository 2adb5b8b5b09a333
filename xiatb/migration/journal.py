"""What a daemon must remember of its jobs when it is killed: one JSON file (0600) per job and role.

A state is on disk before anything is done that relies on it (the file is flushed, then renamed). A daemon
that starts reads what is left and settles it; layout in docs/protocol-migration.md.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xiatb.errors import WireError, XiatbError
from xiatb.migration.messages import Request, decode, encode

log = logging.getLogger("xiatb.migration")
SOURCE, DESTINATION = "source", "destination"


@dataclass(frozen=True)
class Entry:
    """One job. `role` is SOURCE or DESTINATION, `state` that of actions.Record, `peer` the other host's name.

    `disks` are files made for the job (destination), `sockets` local sockets; `process` is the guest's
    process at the source as (pid, start time in clock ticks), (0, 0) when unknown.
    """

    job: str
    role: str
    state: str
    peer: str
    request: Request
    disks: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    process: tuple[int, int] = (0, 0)

    @property
    def guest(self) -> str:
        """The guest's name."""
        return self.request.guest


class Journal:
    """The entries of one daemon, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, entry: Entry) -> None:
        """Put the entry on disk in place of the one before; raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = {**dataclasses.asdict(entry), "request": encode(entry.request)}
        path = self._path(entry.job, entry.role)
        partial = path.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(data) + "\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def note(self, entry: Entry) -> None:
        """As `write`, but a file system that is full or broken is only logged. For states that a daemon that
        was started again can do without, by what runs and by asking: to stop half-way would be worse."""
        try:
            self.write(entry)
        except OSError as error:
            log.error("job %s: the journal does not say %s: %s", entry.job, entry.state, error)

    def close(self, job: str, role: str) -> None:
        """The job is over; nobody will ask for it."""
        self._path(job, role).unlink(missing_ok=True)

    def drop(self, entry: Entry, *, disks: bool) -> None:
        """As `close`, for a job that was interrupted: its sockets go too, and its disks if `disks`."""
        removed = remove_files(entry, disks=disks)
        self.close(entry.job, entry.role)
        log.warning("job %s was interrupted; removed %s", entry.job, ", ".join(removed) or "nothing")

    def find(self, job: str, role: str) -> Entry | None:
        """The entry of a job, None when there is none."""
        path = self._path(job, role)
        return _read(path) if path.exists() else None

    def left(self) -> list[Entry]:
        """All entries; a damaged one is set aside as `.damaged` and logged."""
        found = []
        for path in sorted(self._directory.glob("job-*.json")):
            entry = _read(path)
            if entry is None:
                path.replace(path.with_suffix(".damaged"))
            else:
                found.append(entry)
        return found

    def _path(self, job: str, role: str) -> Path:
        return self._directory / f"job-{job}-{role}.json"


def remove_files(entry: Entry, *, disks: bool) -> tuple[str, ...]:
    """Remove a job's sockets and, with `disks`, its disks; gives what was there."""
    removed = []
    for path in map(Path, (*entry.sockets, *(entry.disks if disks else ()))):
        if path.exists():
            path.unlink(missing_ok=True)
            removed.append(str(path))
    return tuple(removed)


def _read(path: Path) -> Entry | None:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        request = decode(data["request"])
        if not isinstance(request, Request):
            raise WireError("no request")
        return Entry(
            job=str(data["job"]), role=str(data["role"]), state=str(data["state"]), peer=str(data["peer"]),
            request=request, disks=tuple(map(str, data["disks"])), sockets=tuple(map(str, data["sockets"])),
            process=(int(data["process"][0]), int(data["process"][1])),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError, XiatbError) as error:
        log.warning("%s: %s", path, error)
        return None
