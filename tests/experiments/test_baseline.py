"""`xiatb baseline` on a lab of another name: XIA and TCP/IP in turns, then TCP by hand."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.experiments.keptruns import KeptRun, kept_run
from tests.lab.labs import INTERRUPTED, cli, needs_root
from tests.lines import until_line
from xiatb.lab.client import LabClient
from xiatb.lab.namespaces import inside
from xiatb.lab.paths import NETNS_ROOT

pytestmark = [pytest.mark.guest, needs_root]

LEGS = [("hv1", "hv3"), ("hv3", "hv2"), ("hv2", "hv1")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptRun]:
    # Quicker links and less to copy than in the example: what is tested here are no figures.
    changes = {"100mbit": "400mbit", "memory: 192M": "memory: 160M"}
    with kept_run(tmp_path_factory.mktemp("baseline"), "baseline", "baseline", changes) as one:
        yield one


def leg_of(run: KeptRun, source: str, destination: str) -> dict[str, Any]:
    return next(one for one in run.said["legs"] if (one["from"], one["to"]) == (source, destination))


def test_both_transports_move_the_guest_over_all_legs(run: KeptRun) -> None:
    assert run.done.returncode == 0, run.done.stderr
    assert run.said["verified"] is True and run.said["failures"] == []
    assert [(leg["from"], leg["to"]) for leg in run.said["legs"]] == LEGS
    written = run.json("result.json")
    assert written["legs"] == run.said["legs"]
    assert [one["transport"] for one in written["migrations"]] == ["xia"] * 3 + ["tcp"] * 3
    for one in run.said["samples"]:
        assert one["same_boot"] and 0 < one["downtime_ms"] < one["total_ms"], one
        assert one["bytes_on_wire"] > one["bytes_qemu"] > 16 << 20, one
        assert one["passes"] >= 2, one


def test_within_an_ad_connections_live_over_both(run: KeptRun) -> None:
    leg = leg_of(run, "hv1", "hv3")
    assert leg["same_ad"] is True
    for name in ("xia", "tcp"):
        assert leg[name]["sessions_kept"] == leg[name]["client_answered"] == 1, name
    assert 0 < leg["ratio"]["total_ms"] < 5


@pytest.mark.parametrize("pair", [("hv3", "hv2"), ("hv2", "hv1")])
def test_between_ads_they_break_over_ip_alone(run: KeptRun, pair: tuple[str, str]) -> None:
    leg = leg_of(run, *pair)
    assert leg["same_ad"] is False
    assert leg["xia"]["sessions_kept"] == leg["xia"]["client_answered"] == 1
    assert leg["tcp"]["sessions_kept"] == leg["tcp"]["client_answered"] == 0


def echoes(run: KeptRun, address: str) -> bool:
    """Whether the guest's IPv4 echo answers at this address, from the client's namespace."""
    with (
        contextlib.suppress(OSError),
        inside(NETNS_ROOT / run.plan.netns("client")),
        socket.create_connection((address, 7), timeout=5) as connection,
    ):
        connection.sendall(b"hello")
        return connection.recv(16) == b"hello"
    return False


def place(run: KeptRun) -> str:
    with LabClient(run.lab.name) as client:
        return next(str(one["on"]) for one in client.request("status")["guests"] if one["name"] == "vm1")


def test_a_cancelled_migration_over_tcp_leaves_the_guest_where_it_is(run: KeptRun) -> None:
    assert run.plan.baseline is not None
    words = ["migrate", "-l", run.lab.name, "vm1", "--to", "hv2", "--transport", "tcp", "--bandwidth", "2"]
    child = subprocess.Popen(cli(*words), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    until_line(child.stderr, "copying memory")
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode in INTERRUPTED
    assert place(run) == "hv1"
    assert echoes(run, run.plan.baseline.address("vm1", "hv1"))
    assert not echoes(run, run.plan.baseline.address("vm1", "hv2"))


def test_by_hand_the_guest_gets_an_address_of_the_new_ad(run: KeptRun) -> None:
    assert run.plan.baseline is not None
    words = ["migrate", "-l", run.lab.name, "vm1", "--to", "hv2", "--transport", "tcp", "-o", "json"]
    done = run.lab.cli(*words, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["locator"] == run.plan.baseline.address("vm1", "hv2") and place(run) == "hv2"
    assert echoes(run, result["locator"])
    assert not echoes(run, run.plan.baseline.address("vm1", "hv1"))
