"""Links on the real kernel: delay, rate, loss, MTU; and what can be done in a lab."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.labs import TestLab, needs_root, running
from xiatb.lab.client import LabClient
from xiatb.lab.namespaces import inside
from xiatb.lab.paths import NETNS_ROOT
from xiatb.lab.state import LabState

pytestmark = [pytest.mark.netns, needs_root, pytest.mark.alone]

_ETHERTYPE = 0x88B5  # for local experiments (IEEE 802)
IMPAIRED = """
name: x
nodes:
  h1: {kind: host}
  h2: {kind: host}
  h3: {kind: host}
  r1: {kind: router, ad: ad1}
links:
  - {endpoints: [h1, r1], mtu: 9000}
  - {endpoints: [h2, r1], delay: 10ms, rate: 10mbit, queue: 64k}
  - {endpoints: [h3, r1], loss: 10%}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestLab, LabState]]:
    with running(tmp_path_factory.mktemp("lab"), IMPAIRED) as pair:
        yield pair


def port(lab: TestLab, node: str, name: str = "eth0") -> socket.socket:
    """A packet socket for the test's own ethertype at a node's port."""
    with inside(NETNS_ROOT / f"xiatb-{lab.name}-{node}"):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # no frames before it is bound
        sock.bind((name, _ETHERTYPE))
    sock.settimeout(1.0)
    return sock


def frame(size: int) -> bytes:
    return b"\xff" * 6 + b"\x02\0\0\0\0\1" + _ETHERTYPE.to_bytes(2, "big") + bytes(size - 14)


def receive(sock: socket.socket) -> bytes:
    """The next frame that came in (not one that this end sent)."""
    while True:
        data, address = sock.recvfrom(65536)
        if address[2] != socket.PACKET_OUTGOING:
            return data


def crossing(source: socket.socket, sink: socket.socket) -> float:
    """Seconds that a frame takes: the shortest of ten, for what makes others longer is not the link."""
    times = []
    for _ in range(10):
        begin = time.monotonic()
        source.send(frame(100))
        receive(sink)
        times.append(time.monotonic() - begin)
    return min(times)


def test_delay_is_one_way_in_each_direction(lab: tuple[TestLab, LabState]) -> None:
    for sender, receiver in ((("h2", "eth0"), ("r1", "eth1")), (("r1", "eth1"), ("h2", "eth0"))):
        with port(lab[0], *sender) as source, port(lab[0], *receiver) as sink:
            assert 0.010 <= crossing(source, sink) < 0.014


def test_rate_holds(lab: tuple[TestLab, LabState]) -> None:
    with port(lab[0], "h2") as source, port(lab[0], "r1", "eth1") as sink:
        source.setblocking(False)
        sink.settimeout(0.0)
        # A machine that is busy leaves gaps in which nothing is sent; a wrong rate is wrong each time.
        rates = (rate(source, sink) for _ in range(3))
        assert any(9e6 < last < 11.5e6 for last in rates)


def rate(source: socket.socket, sink: socket.socket) -> float:
    """Bits a second that come through when the queue is kept full for 1.2 s."""
    begin, caught, sent_until = time.monotonic(), 0, 1.2
    first = last = 0.0
    while time.monotonic() - begin < sent_until + 0.2:
        if time.monotonic() - begin < sent_until:
            with contextlib.suppress(OSError):  # the queue is full, as it should be
                source.send(frame(1514))
        try:
            data = receive(sink)
        except BlockingIOError:
            continue
        caught += len(data)
        last = time.monotonic()
        first = first or last
    return caught * 8 / (last - first)


def test_loss_is_near_its_share(lab: tuple[TestLab, LabState]) -> None:
    with port(lab[0], "h3") as source, port(lab[0], "r1", "eth2") as sink:
        caught = 0
        for _ in range(40):
            for _ in range(50):
                source.send(frame(60))
            sink.settimeout(0.05)
            try:
                while True:
                    receive(sink)
                    caught += 1
            except TimeoutError:
                continue
    assert 0.86 < caught / 2000 < 0.94


def test_mtu_holds_and_large_frames_pass_whole(lab: tuple[TestLab, LabState]) -> None:
    with port(lab[0], "h1") as source, port(lab[0], "r1", "eth0") as sink:
        source.send(frame(9014))
        assert len(receive(sink)) == 9014
        with pytest.raises(OSError, match="Message too long"):
            source.send(frame(9100))


def test_the_backend_is_recorded(lab: tuple[TestLab, LabState]) -> None:
    backends = lab[1].backends
    assert backends["rate"] == "tbf"
    assert backends["h1:eth0--r1:eth0"] == "none"
    assert backends["h2:eth0--r1:eth1"] in ("netem", "delay-line")


def test_no_ipv6_no_offloads(lab: tuple[TestLab, LabState]) -> None:
    done = lab[0].cli("exec", "-l", lab[0].name, "r1", "--", "ip", "-6", "addr")
    assert (done.returncode, done.stdout) == (0, "")


def test_ping_tells_the_delay(lab: tuple[TestLab, LabState]) -> None:
    done = lab[0].cli("ping", "-l", lab[0].name, "h1", "h2", "-c", "3", "-i", "0.1", "-o", "json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["received"] == 3
    assert 20 <= told["rtt_min_ms"] < 40


def test_ping_to_nowhere_ends_with_1(lab: tuple[TestLab, LabState]) -> None:
    nowhere = f"RE AD:{'0' * 39}1 HID:{'0' * 39}2"
    done = lab[0].cli("ping", "-l", lab[0].name, "h1", nowhere, "-c", "1", "-W", "0.5")
    assert done.returncode == 1
    assert "unreachable" in done.stdout


def test_exec_gives_the_commands_own_code_and_surroundings(lab: tuple[TestLab, LabState]) -> None:
    name = lab[0].name
    done = lab[0].cli("exec", "-l", name, "h1", "--", "sh", "-c", "echo $XIA_CONTROL; pwd; exit 7")
    assert done.returncode == 7
    assert done.stdout.split() == [str(lab[0].paths.control("h1")), str(lab[0].paths.home("h1"))]
    assert lab[0].cli("exec", "-l", name, "h1", "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert lab[0].cli("exec", "-l", name, "h1", "--", "no-such-program").returncode == 127
    assert lab[0].cli("exec", "-l", name, "h9", "--", "true").returncode == 2
    assert lab[0].cli("exec", "-l", "nosuchlab", "h1", "--", "true").returncode == 5
    assert lab[0].cli("exec", "-l", name, "--timeout", "200ms", "h1", "--", "sleep", "60").returncode == 124


def test_captures_are_pcapng_with_our_frames(lab: tuple[TestLab, LabState], tmp_path: Path) -> None:
    file = tmp_path / "c.pcapng"
    with LabClient(lab[0].name) as client:
        capture = client.request("capture_start", node="r1", port="eth0", path=str(file))["capture"]
        assert lab[0].cli("ping", "-l", lab[0].name, "h1", "r1", "-c", "2", "-i", "0.05").returncode == 0
        result = client.request("capture_stop", capture=capture)
    assert file.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    shown = subprocess.run(
        ["tshark", "-r", str(file), "-Y", "xip", "-T", "fields", "-e", "frame.number"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert len(shown.split()) >= 4
    assert result["packets"] >= 4


def test_run_starts_a_process_that_belongs_to_the_lab(lab: tuple[TestLab, LabState], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with LabClient(lab[0].name) as client:
        client.request(
            "run", node="h1", argv=["sh", "-c", "echo $XIATB_NODE; exit 3"], what="probe", log=str(log)
        )
        assert client.request("run_wait", what="probe", params={"timeout": 10})["returncode"] == 3
    assert log.read_text() == "h1\n"


def test_wait_says_when_it_has_converged(lab: tuple[TestLab, LabState]) -> None:
    assert lab[0].cli("wait", "-l", lab[0].name, "--for", "converged").returncode == 0
