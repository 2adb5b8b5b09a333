"""Taking a lab down: the journal walked backwards, whoever died in between.

What belongs to the lab is known by marks that cannot be mistaken: pid with start time, the lab's random id
in a process's environment, the inode of a network namespace that the lab's name is still bound to, paths
that the journal names. Nothing is found by name pattern. Every step may be repeated: an interrupted
teardown is simply run again.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.lab import process
from xiatb.lab.journal import processes, read_journal
from xiatb.lab.namespaces import unbind_name, unmount
from xiatb.lab.paths import NETNS_ROOT, LabPaths
from xiatb.lab.process import ProcessId

MADE_NETNS_ROOT = ".made-netns-root"
"""Marker in /run/xiatb: the directory /run/netns was not there before the first lab."""


class TeardownError(XiatbError):
    """Something of the lab could not be removed; what, is in the message. Run `down` again."""


def teardown(paths: LabPaths, progress: Callable[[str], None] = lambda _: None) -> None:
    """Remove everything that the journal of `paths` names. Raises LabStateError when there is no journal and
    TeardownError when something resists."""
    header, acts = read_journal(paths.journal)
    if header.this_boot:
        survivors = _stop_processes(header.id, acts, progress)
        if survivors:
            raise TeardownError(f"these processes do not end: {', '.join(str(one.pid) for one in survivors)}")
    trouble: list[str] = []
    for act in reversed(acts):
        try:
            _undo(act, paths, this_boot=header.this_boot)
        except (OSError, XiatbError) as error:
            trouble.append(str(error))
    if trouble:
        raise TeardownError("; ".join(trouble), hint=f"xiatb down {paths.lab} tries again")
    progress("removing files")
    remove_root(paths)


def remove_root(paths: LabPaths) -> None:
    """The state directory, the journal last; then what the first lab made around it, after the last one."""
    if paths.root.is_dir():
        for entry in sorted(paths.root.iterdir()):
            if entry != paths.journal:
                remove_tree(entry)
    paths.journal.unlink(missing_ok=True)
    for directory in (paths.root, paths.disk_root):
        _remove_empty(directory)
    _remove_shared(paths.run_root)


def remove_tree(path: Path) -> None:
    """A file or a directory tree; whatever is still mounted below it is unmounted first."""
    for mounted in sorted(mounts_below(path), reverse=True):
        unmount(mounted)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def mounts_below(path: Path) -> list[Path]:
    """Mount points at or below a path in this mount namespace (proc(5), mountinfo field 5)."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if point == path or path in point.parents:
            found.append(point)
    return found


def lab_processes(lab_id: str, acts: list[dict[str, Any]]) -> list[ProcessId]:
    """Living processes of a lab: journalled, marked, or in one of its namespaces; not this one or its
    parents."""
    found = set(process.marked(lab_id)) | set(process.in_netns(_inodes(acts)))
    found |= {one for one in processes(acts) if one.alive()}
    spared = _ancestors()
    return sorted(one for one in found if one.pid not in spared)


def _stop_processes(
    lab_id: str, acts: list[dict[str, Any]], progress: Callable[[str], None]
) -> list[ProcessId]:
    """Several rounds: a process may start another while it is told to stop."""
    gentle = {ProcessId(act["pid"], act["start"]) for act in acts if act["act"] == "process"}
    gentle -= {
        ProcessId(act["pid"], act["start"]) for act in acts if act.get("what", "").startswith("shell ")
    }
    survivors: list[ProcessId] = []
    for _ in range(4):
        targets = lab_processes(lab_id, acts)
        if not targets:
            return []
        progress(f"stopping {len(targets)} processes")
        for one in targets:
            if one not in gentle:
                one.signal(signal.SIGHUP)  # interactive shells ignore SIGTERM
        survivors = process.stop_all(targets)
    return survivors


def _inodes(acts: list[dict[str, Any]]) -> list[int]:
    """Inodes that are surely still the lab's: its name is bound to them (inode numbers are used again)."""
    inodes = []
    for act in acts:
        if act["act"] == "netns":
            try:
                if os.stat(act["path"]).st_ino == act["inode"]:
                    inodes.append(act["inode"])
            except OSError:
                continue
    return inodes


def _ancestors() -> set[int]:
    spared, pid = set(), os.getpid()
    while pid > 1:
        spared.add(pid)
        status = Path(f"/proc/{pid}/stat").read_text()
        pid = int(status[status.rindex(")") + 2 :].split()[1])
    return spared


def _undo(act: dict[str, Any], paths: LabPaths, *, this_boot: bool) -> None:
    kind = act["act"]
    if kind == "netns" and this_boot:
        unbind_name(Path(act["path"]), act["inode"])
    elif kind == "mount" and this_boot:
        unmount(Path(act["path"]))
    elif kind == "tree" and Path(act["path"]) != paths.root:
        remove_tree(Path(act["path"]))


def _remove_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return


def _remove_shared(run_root: Path) -> None:
    """/run/netns, if it was not there before the first lab, and /run/xiatb: when they are empty."""
    marker = run_root / MADE_NETNS_ROOT
    if marker.exists() and [entry.name for entry in run_root.iterdir()] == [marker.name]:
        _remove_empty(NETNS_ROOT)
        marker.unlink(missing_ok=True)
    _remove_empty(run_root)
