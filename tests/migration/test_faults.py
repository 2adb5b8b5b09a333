"""Every cell of the fault table, with the real daemons over simulated hypervisors and links.

The rules of each cell: one running copy at most at any time, and exactly one at the end unless the guest has
died where it ran; its memory and disk are what it has written; no file, socket, journal entry or route is
left; the user is told what the table says, and what to do.
"""

from __future__ import annotations

import errno
import gc
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.migration.simfaults import Ended, play
from tests.migration.simguest import World
from xiatb.cli import migrationview as view
from xiatb.experiments.faults.table import (
    BEFORE,
    FAULTS,
    HERE,
    LOST,
    PAUSED,
    PHASES,
    TABLE,
    THERE,
    cells,
    page,
)
from xiatb.migration.advice import NEXT, advice
from xiatb.migration.journal import Entry, Journal
from xiatb.migration.messages import ABORT_CODES, REJECT_CODES

DOCS = Path(__file__).resolve().parents[2] / "docs"
POINTS = {"handover": "started"}


@pytest.fixture(autouse=True, scope="module")
def _tidy() -> Iterator[None]:
    """What killed daemons leave is garbage in cycles, whose end runs code: let it run here, not in the middle
    of somebody else's work (CPython's gh-106905: inside ast.parse it is an error)."""
    yield
    gc.collect()


@pytest.mark.parametrize(("fault", "phase"), [(fault, phase) for fault, phase, _ in cells()])
def test_cell(fault: str, phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"mode": "postcopy"} if phase == "postcopy" else {}
    ended = play(
        tmp_path, monkeypatch, fault, POINTS.get(phase, phase), (fault, phase) in BEFORE, **options
    )
    check(ended, fault, phase)


def test_the_end_of_the_destinations_daemon_is_heard_of_in_the_hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is under way then that would be answered by a reset; and libvirt waits for an answer that died
    with the daemon."""
    ended = play(tmp_path, monkeypatch, "destination-daemon", POINTS["handover"])
    check(ended, "destination-daemon", "handover")
    assert ended.answered_s < 10.0


def test_a_cut_before_the_commit_keeps_the_old_disk_until_the_path_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = play(tmp_path, monkeypatch, "cut", "answered")
    check(ended, "cut", "handover")
    assert ended.message.startswith("the guest has moved, but the destination does not confirm it")


def test_a_source_that_was_started_again_says_that_the_guest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The destination settles the job then, not when the dead daemon's streams time out."""
    with caplog.at_level(logging.INFO, "xiatb.migration"):
        check(play(tmp_path, monkeypatch, "source-daemon", "first"), "source-daemon", "first")
    assert "the guest stays, hv2 says: none" in caplog.text


def test_a_guest_that_dies_before_the_commit_is_lost_not_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = play(tmp_path, monkeypatch, "destination-qemu", "answered")
    check(ended, "destination-qemu", "handover")
    assert "died at the destination" in ended.message


@pytest.mark.parametrize("fault", ["cut", "source-daemon", "destination-daemon"])
def test_a_post_copy_goes_on_though_qemu_holds_its_main_lock(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """libvirt at the destination would ask QEMU something that is not answered for very long; and a daemon
    that was started again there has the right to ask out of band from its predecessor."""
    monkeypatch.setattr(World, "lock_s", 1000.0)
    with caplog.at_level(logging.INFO, "xiatb.migration"):
        ended = play(tmp_path, monkeypatch, fault, "postcopy", mode="postcopy")
    check(ended, fault, "postcopy")
    assert ended.history.count("runs on hv2") == 1
    assert ended.told == []  # no attempt has failed
    assert "recovery is left to libvirt" not in caplog.text


def test_an_attempt_to_go_on_is_not_ended_by_the_end_of_the_stream_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """QEMU at the source may notice the end of its stream only after the destination has granted another
    one. QEMU 7.2 stays in `postcopy-recover` for good when an attempt is broken off there: seen with a real
    guest, in destination-libvirtd/postcopy."""
    monkeypatch.setattr(World, "lock_s", 1000.0)
    monkeypatch.setattr(World, "pause_s", 4.0)
    with caplog.at_level(logging.INFO, "xiatb.migration"):
        ended = play(tmp_path, monkeypatch, "destination-daemon", "postcopy", mode="postcopy")
    check(ended, "destination-daemon", "postcopy")
    assert ended.told == []
    before, _, since = caplog.text.partition("RecoverTransfer")
    assert "phase asking" in before
    assert "phase asking" not in since


@pytest.mark.parametrize("phase", PHASES)
def test_the_source_s_libvirtd_dies(phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the lab starts it again; what it did not do for the daemon is asked of the next one."""
    options: dict[str, Any] = {"mode": "postcopy"} if phase == "postcopy" else {}
    point = POINTS.get(phase, phase)
    ended = play(tmp_path, monkeypatch, "source-libvirtd", point, virt_s=2.0, **options)
    assert ended.problems == [], ended
    assert ended.running == (["hv2"] if phase in ("handover", "postcopy") else ["hv1"])
    assert ended.code == ("" if ended.running == ["hv2"] else "failed")


@pytest.mark.parametrize("fault", ["source-libvirtd", "cut+source-libvirtd"])
def test_a_post_copy_goes_on_though_the_source_s_libvirtd_is_long_in_coming_back(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that falls into that time fails, and another begins."""
    ended = play(tmp_path, monkeypatch, fault, "postcopy", mode="postcopy")
    assert ended.problems == [], ended
    assert ended.running == ["hv2"]
    told = [view.decision(one) for one in ended.told]
    assert told[0] == "post-copy: attempt 1 to go on has failed: Cannot recv data: Connection reset by peer"
    assert "precopy" not in ended.phases[ended.phases.index("postcopy") :], "no pre-copy is shown again"


@pytest.mark.parametrize("mode", ["precopy", "postcopy"])
@pytest.mark.parametrize("role", ["source", "destination"])
@pytest.mark.parametrize("state", ["", "transfer", "handover", "arrived", "moved", "here", "postcopy"])
def test_a_journal_that_cannot_be_written(
    state: str, role: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system of /run is full, always or from this state on: the migration fails before anything
    relies on what should stand there, or goes on; and its user is told."""
    write = Journal.write
    full: list[Entry] = []

    def refuse(journal: Journal, entry: Entry) -> None:
        if entry.role == role and (entry.state == state or not state or full):
            full.append(entry)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(journal, entry)

    monkeypatch.setattr(Journal, "write", refuse)
    ended = play(tmp_path, monkeypatch, "nothing", "first", True, mode=mode)
    assert ended.problems == [], ended
    assert len(ended.running) == 1 and (ended.running == ["hv2"]) == (not ended.code)
    assert ended.code in ("", "failed", "lost")


def test_a_recovery_that_carries_nothing_is_given_up_and_another_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The guest has no second monitor, over which QEMU could be asked; its lock is free after 200 s."""
    monkeypatch.setattr(World, "lock_s", 200.0)
    monkeypatch.setattr(World, "second_monitor", False)
    with caplog.at_level(logging.INFO, "xiatb.migration"):
        ended = play(tmp_path, monkeypatch, "destination-daemon", "postcopy", mode="postcopy")
    check(ended, "destination-daemon", "postcopy")
    assert "recovery is left to libvirt" in caplog.text
    assert "the recovery carried nothing for 60 s" in caplog.text
    told = [view.decision(one) for one in ended.told]
    assert told[0] == "post-copy: attempt 1 to go on has failed: the recovery carried nothing for 60 s"
    assert 2 <= len(told) <= 3


def check(ended: Ended, fault: str, phase: str) -> None:
    outcome = TABLE[fault][phase]
    assert ended.problems == [], ended
    where = {HERE: ["hv1"], THERE: ["hv2"], PAUSED: ["hv2"], LOST: []}[outcome.ends]
    assert ended.running == where, ended
    assert ended.paused == (outcome.ends == PAUSED)
    if ended.code != "daemon":  # the daemon that would say it has died; the lab says it (test_manager)
        assert ended.code in outcome.codes, ended
        assert bool(ended.code) == bool(ended.hint)
        assert "{" not in ended.hint


def test_the_table_is_whole_and_shown() -> None:
    assert set(TABLE) == set(FAULTS)
    assert all(set(row) == set(PHASES) for row in TABLE.values())
    assert page() in (DOCS / "reliability.md").read_text()


def test_every_code_has_advice() -> None:
    for code in {*ABORT_CODES, *REJECT_CODES}:
        told = advice(code, "vm1", "hv1", "hv2")
        assert told.startswith("vm1 runs on hv1 as before; "), code
        assert code in NEXT
    assert advice("guest-lost", "vm1", "hv1", "hv2").startswith("vm1 runs nowhere")


def test_the_script_prints_the_table_and_knows_its_cells() -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "faults"
    shown = subprocess.run([script, "--table"], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == page()
    wrong = subprocess.run([script, "cut/lunch"], capture_output=True, text=True, check=False, timeout=60)
    assert wrong.returncode == 2
    assert "no cell 'cut/lunch'" in wrong.stderr
