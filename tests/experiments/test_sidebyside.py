"""The comparison of XIA and TCP/IP: medians and ratios, what is a finding and what a failure, the clients."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lines import next_line
from xiatb.errors import UsageError
from xiatb.experiments.baseline import BaselineRun
from xiatb.experiments.probelog import ProbeLog
from xiatb.experiments.rundir import RunDirectory
from xiatb.experiments.sidebyside import Sample, compare, failures, table
from xiatb.lab.load import load
from xiatb.lab.planner import make_plan
from xiatb.lab.runner import HostRunner

TOPOLOGIES = Path(__file__).resolve().parents[2] / "topologies"


def sample(transport: str = "xia", **more: Any) -> Sample:
    plain = Sample(
        transport, "hv1", "hv3", same_ad=True, total_ms=2000.0, downtime_ms=100.0, client_gap_ms=120.0,
        client_answered=True, probes_sent=1000, probes_lost=3, session_kept=True, session_error="",
        same_boot=True, bytes_qemu=10_000_000, bytes_on_wire=11_000_000, passes=3,
    )  # fmt: skip
    return dataclasses.replace(plain, **more)


def test_medians_and_ratios() -> None:
    samples = [sample(total_ms=ms) for ms in (1000.0, 3000.0, 1100.0)]
    samples += [sample("tcp", total_ms=1000.0, downtime_ms=50.0)]
    (leg,) = compare(samples)
    assert (leg["xia"]["total_ms"], leg["tcp"]["total_ms"], leg["xia"]["runs"]) == (1100.0, 1000.0, 3)
    assert leg["ratio"]["total_ms"] == 1.1 and leg["ratio"]["downtime_ms"] == 2.0
    assert leg["tcp"]["goodput_mbit"] == 80.0
    rows = {str(row[0]): row[1:] for row in table(leg)}
    assert rows["total ms"] == ["1100", "1000", "1.10"]
    assert rows["connections kept"] == ["3 of 3", "1 of 1", ""]


def test_one_side_alone() -> None:
    (leg,) = compare([sample("tcp")])
    assert leg["xia"] is None and "ratio" not in leg
    assert {str(row[1]) for row in table(leg)} == {"-"}


def test_a_broken_connection_is_a_finding_only_over_ip_between_ads() -> None:
    broken = {"session_kept": False, "client_answered": False, "session_error": "no route"}
    assert failures([sample("tcp", same_ad=False, **broken)]) == []
    (leg,) = compare([sample("tcp", same_ad=False, **broken), sample(same_ad=False)])
    rows = {str(row[0]): row[1:] for row in table(leg)}
    assert rows["client gap ms"] == ["120", "no answer any more", ""]
    assert rows["connections kept"] == ["1 of 1", "0 of 1", ""]
    assert len(failures([sample("tcp", **broken), sample("xia", same_ad=False, **broken)])) == 2
    assert "booted again" in failures([sample(same_boot=False)])[0]


def test_the_route_of_the_guest(tmp_path: Path) -> None:
    plan = make_plan(load(TOPOLOGIES / "baseline.yaml"))
    directory = RunDirectory(tmp_path)
    with pytest.raises(UsageError, match="no IPv4 beside XIA"):
        BaselineRun(make_plan(load(TOPOLOGIES / "migration.yaml")), directory, HostRunner(), print, dict)
    run = object.__new__(BaselineRun)
    run._plan, run._guest = plan, plan.guests[0]
    assert run.route([]) == [("hv1", "hv3"), ("hv3", "hv2"), ("hv2", "hv1")], "its own AD first"
    assert run.route(["hv2", "hv1"]) == [("hv1", "hv2"), ("hv2", "hv1")]
    for hosts in (["hv9"], ["hv1"], ["hv2", "hv2"]):
        with pytest.raises(UsageError):
            run.route(hosts)


def client(port: int, out: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "xiatb.experiments.ipclient", "--responder", f"127.0.0.1:{port}",
            "--echo", f"127.0.0.1:{port}", "--rate", "200", "--out", str(out)]  # fmt: skip
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_the_client_over_ip_measures_and_tells_a_connection_that_stalls(tmp_path: Path) -> None:
    """First an echo that works, then one that has gone silent: `check` says so, the client ends in order."""

    async def scenario() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        silent, swallowed = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                if silent.is_set():
                    swallowed.set()
                else:
                    writer.write(data)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", port))
        udp.setblocking(False)
        loop = asyncio.get_running_loop()

        def answer() -> None:
            payload, source = udp.recvfrom(2048)
            if not silent.is_set():
                udp.sendto(payload, source)

        loop.add_reader(udp, answer)
        child = client(port, tmp_path / "probes.bin")
        assert child.stdin is not None and child.stdout is not None
        lines = child.stdout

        async def said() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(await asyncio.to_thread(next_line, lines))
            return told

        async def check() -> dict[str, Any]:
            assert child.stdin is not None
            child.stdin.write("check\n")
            child.stdin.flush()
            return await said()

        assert (await said())["event"] == "ready"
        working = await check()
        silent.set()
        await asyncio.wait_for(swallowed.wait(), 5)
        stalled = await check()
        child.stdin.close()
        done = await said()
        loop.remove_reader(udp)
        udp.close()
        server.close()
        assert await asyncio.to_thread(child.wait, 10) == 1
        lines.close()
        return working, stalled, done

    working, stalled, done = asyncio.run(scenario())
    assert working["stream_intact"] is True
    assert stalled["stream_intact"] is False and stalled["stream_echoed"] < stalled["stream_bytes"]
    assert done["event"] == "done" and done["stream_intact"] is False
    log = ProbeLog.load(tmp_path / "probes.bin")
    answered = sum(map(bool, log.answered))
    assert 0 < answered < len(log.sent)
