"""Who gets the host's processors first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xiatb.lab.priority import GUEST, PROCESSOR, favour_processors, hurry_processors, prioritised
from xiatb.node.session import grouped

THREADS = """
import ctypes, sys, threading
libc = ctypes.CDLL(None)
def named(name):
    libc.prctl(15, name, 0, 0, 0)  # PR_SET_NAME
    ready.wait()
    over.wait()
ready, over = threading.Barrier(4), threading.Event()
for name in (b"CPU 0/TCG", b"CPU 1/TCG", b"IO mon_iothread"):
    threading.Thread(target=named, args=(name,), daemon=True).start()
ready.wait()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_command_keeps_its_words() -> None:
    assert prioritised(["qemu", "-m", "1"], -3) == ["nice", "-n", "-3", "qemu", "-m", "1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_only_virtual_processors_are_favoured() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert favour_processors(child.pid) == 2
        assert hurry_processors(child.pid) == 2
        policies = sorted(os.sched_getscheduler(int(task)) for task in os.listdir(f"/proc/{child.pid}/task"))
        assert policies == [os.SCHED_OTHER, os.SCHED_OTHER, os.SCHED_RR, os.SCHED_RR]
        assert favour_processors(child.pid) == 2
        found = {}
        for task in os.listdir(f"/proc/{child.pid}/task"):
            with open(f"/proc/{child.pid}/task/{task}/comm", encoding="utf-8") as comm:
                assert os.sched_getscheduler(int(task)) == os.SCHED_OTHER
                found.setdefault(comm.read().strip(), os.getpriority(os.PRIO_PROCESS, int(task)))
        child.stdin.close()
    assert found["CPU 0/TCG"] == found["CPU 1/TCG"] == PROCESSOR
    assert found["IO mon_iothread"] == os.getpriority(os.PRIO_PROCESS, 0)


def test_a_process_that_is_gone_has_none() -> None:
    assert favour_processors(2**22 + 1) == hurry_processors(2**22 + 1) == 0


@pytest.mark.skipif(os.geteuid() != 0 or not grouped(), reason="needs root and a kernel that groups sessions")
def test_a_guest_goes_before_the_bulk_work_of_other_sessions() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        assert favour_processors(child.pid) == 0
        with open(f"/proc/{child.pid}/autogroup", encoding="ascii") as group:
            found = int(group.read().split()[-1])
        child.kill()
    assert found == GUEST
