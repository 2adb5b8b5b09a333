"""The lab's journal: what is about to be made, on disk before it is made.

`journal.jsonl` is append-only and fsync'ed, one JSON object a line: first {"act":"lab","id":...,"boot":...},
then one act a line. `teardown` walks it backwards. A line that a crash cut short is ignored: its act was
never begun.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xiatb.errors import LabStateError
from xiatb.lab.process import ProcessId, boot_id

ACTS = ("lab", "tree", "mount", "netns", "process")


@dataclass(frozen=True)
class Header:
    """Which instance of a lab a journal is of."""

    id: str
    boot: str

    @property
    def this_boot(self) -> bool:
        """False after a reboot: then processes, mounts and namespaces are gone already."""
        return self.boot == boot_id()


class Journal:
    """Appends acts; safe from several threads."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def begin(self, lab_id: str) -> None:
        """The first line."""
        self._write({"act": "lab", "id": lab_id, "boot": boot_id()})

    def path(self, path: Path, *, what: str = "") -> None:
        """A file or directory tree is about to be made."""
        self._write({"act": "tree", "path": str(path), "what": what})

    def mount(self, path: Path, *, what: str = "") -> None:
        """Something is about to be mounted at `path`."""
        self._write({"act": "mount", "path": str(path), "what": what})

    def netns(self, path: Path, inode: int) -> None:
        """The network namespace with this inode is about to be bound at `path`; processes in it are the
        lab's."""
        self._write({"act": "netns", "path": str(path), "inode": inode})

    def process(self, pid: int, start: int, *, what: str = "") -> None:
        """A process was started; it bears the lab's mark in its environment from its first moment, so one
        that a crash kept out of the journal is found too."""
        self._write({"act": "process", "pid": pid, "start": start, "what": what})

    def close(self) -> None:
        """Close the file; the journal itself stays."""
        os.close(self._descriptor)

    def _write(self, record: dict[str, Any]) -> None:
        key = json.dumps(record, sort_keys=True)
        with self._lock:
            if key in self._known:
                return
            self._known.add(key)
            line = json.dumps({**record, "time": round(time.time(), 3)}) + "\n"
            os.write(self._descriptor, line.encode())
            os.fsync(self._descriptor)


def read_journal(path: Path) -> tuple[Header, list[dict[str, Any]]]:
    """Header and acts in the order in which they were written. Raises LabStateError when there is no journal
    or it does not begin with a header."""
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise LabStateError(
            f"no such lab: {path.parent.name}", hint="xiatb list shows the labs that are up"
        ) from error
    records = list(_records(text))
    if not records or records[0].get("act") != "lab":
        raise LabStateError(f"{path}: does not begin with a header; not a journal of xiatb")
    return Header(str(records[0]["id"]), str(records[0]["boot"])), records[1:]


def processes(acts: list[dict[str, Any]]) -> list[ProcessId]:
    """All processes that a journal names."""
    return [ProcessId(act["pid"], act["start"]) for act in acts if act["act"] == "process"]


def _records(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("act") in ACTS:
            yield record
