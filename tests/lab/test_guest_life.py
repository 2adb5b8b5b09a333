"""Labs with a guest: killed and interrupted, and still nothing is left."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.lab.labs import INTERRUPTED, TestLab, cli, leftovers, needs_root, running
from tests.lines import until_line
from xiatb.lab import process

pytestmark = [pytest.mark.guest, needs_root]

ONE_GUEST = """
name: x
nodes:
  client: {kind: host}
  hv1: {kind: hypervisor, ad: ad1}
guests:
  vm1: {on: hv1, memory: 192M}
links:
  - client -- hv1
"""


def test_down_after_supervisor_and_libvirtd_were_killed(tmp_path: Path) -> None:
    with running(tmp_path, ONE_GUEST) as (lab, state):
        assert lab.cli("ping", "-l", lab.name, "client", "vm1", "-c", "1", "-W", "5").returncode == 0
        inside = process.in_netns([state.nodes["hv1"].inode])
        daemons = [one for one in inside if b"libvirtd" in Path(f"/proc/{one.pid}/cmdline").read_bytes()]
        assert daemons
        for victim in (state.supervisor, *daemons):
            victim.signal(signal.SIGKILL)
        process.wait_gone([state.supervisor, *daemons], 5)
        assert lab.cli("status", lab.name).returncode == 1
        assert lab.cli("down", lab.name).returncode == 0
        assert leftovers(lab.name, state.id) == []


def test_an_up_interrupted_while_the_guest_boots_leaves_nothing(tmp_path: Path) -> None:
    lab = TestLab(tmp_path, ONE_GUEST)
    child = subprocess.Popen(cli("up", str(lab.file), "-n", lab.name), stderr=subprocess.PIPE, text=True)
    until_line(child.stderr, "] guests")
    lab_id = lab.lab_id()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode in INTERRUPTED
    assert leftovers(lab.name, lab_id) == []
