"""A guest's processors go before everything else when it arrives, and for moments only."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xiatb.migration import arrival
from xiatb.migration.arrival import expect, settle_all, settle_soon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
QEMU = """
import ctypes, sys, threading
def processor():
    ctypes.CDLL(None).prctl(15, b"CPU 0/TCG", 0, 0, 0)  # PR_SET_NAME
    print(threading.get_native_id(), flush=True)
    over.wait()
over = threading.Event()
threading.Thread(target=processor, daemon=True).start()
sys.stdin.read()
"""


@pytest.fixture
def processor(tmp_path: Path) -> Iterator[int]:
    """The thread of a process that has QEMU's thread names; tmp_path/vm1.pid tells the process."""
    with subprocess.Popen(
        [sys.executable, "-c", QEMU], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        thread = int(child.stdout.readline())
        (tmp_path / "vm1.pid").write_text(f"{child.pid}\n")
        (tmp_path / "driver.pid").write_text(f"{os.getpid()}\n")
        yield thread
        child.stdin.close()


def test_it_is_hurried_until_a_while_after_resume(
    processor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrival, "ARRIVAL_S", 0.01)
    async def arrives() -> None:
        expect("vm1", tmp_path)
        assert os.sched_getscheduler(processor) == os.SCHED_RR
        settle_soon("vm1", tmp_path)
        assert os.sched_getscheduler(processor) == os.SCHED_RR
        deadline = time.monotonic() + 10
        while os.sched_getscheduler(processor) != os.SCHED_OTHER:
            assert time.monotonic() < deadline, "still before everything else"
            await asyncio.sleep(0.005)

    asyncio.run(arrives())


def test_a_daemon_that_starts_again_ends_what_its_predecessor_began(processor: int, tmp_path: Path) -> None:
    expect("vm1", tmp_path)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    settle_all(tmp_path)
    assert os.sched_getscheduler(processor) == os.SCHED_OTHER
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_a_guest_without_a_process_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "vm2.pid").write_text("no number")
    expect("vm1", tmp_path)
    expect("vm2", tmp_path)
    settle_all(tmp_path)
