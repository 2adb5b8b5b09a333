"""Real forwarding between namespaces: who sees what, queues, taps, and what is left when the process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fastpath.line import ETH_P_ALL, FAR, HERE, MTU, NOWHERE, SERVICE, Line, Wire, open_tap, packet
from tests.lines import next_line
from tests.node.namespaces import Namespaces, ip
from xiatb.fastpath.engine import Fastpath
from xiatb.fastpath.mirror import BROADCAST
from xiatb.fastpath.routes import Reason
from xiatb.wire.dag import DAG

pytestmark = pytest.mark.netns
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def line(namespaces: Namespaces, fastpath: Fastpath) -> Iterator[Line]:
    fastpath.enable()
    with Line(namespaces, fastpath) as made:
        yield made


def forwarded(line: Line, xip_packet: bytes) -> bytes:
    """What B gets when nothing but the hop limit changes."""
    changed = bytearray(xip_packet)
    changed[4] -= 1
    return line.mac_b + line.ports[2].mac + b"\xc0\xde" + changed


def test_forwarded_packets_bypass_the_node_and_the_others_do_not(line: Line) -> None:
    a, b = line.wire("a", "eth0"), line.wire("b", "eth0")
    node = line.wire("r", "r1")
    capture = line.wire("r", "r1", ETH_P_ALL), line.wire("r", "r2", ETH_P_ALL)
    good = [packet(DAG.chain(FAR, HERE), bytes([n]) * n) for n in (0, 1, 130)]
    good += [packet(DAG.chain(FAR, HERE), bytes(size)) for size in (5000, 8800)]
    lost = packet(DAG.chain(NOWHERE), b"lost")
    tired = packet(DAG.chain(FAR), b"tired", hlim=1)
    own = packet(DAG.chain(HERE), b"own")
    for item in (*good, lost, tired, own):
        a.send(line.to_router(item))
    assert b.received(5) == [forwarded(line, item) for item in good]
    assert node.received(3) == [line.to_router(item) for item in (lost, tired, own)], "as they came"
    assert not node.waiting() and not b.waiting()
    assert capture[0].waiting() == [line.to_router(item) for item in (*good, lost, tired, own)]
    assert capture[1].waiting() == [forwarded(line, item) for item in good]
    came, left = line.engine.counters(1), line.engine.counters(2)
    assert came[:2] == left[2:4] == (5, sum(len(item) + 14 for item in good))
    seen = {reason: count for reason, count in came.reasons.items() if count}
    assert seen == {Reason.NO_ROUTE: 1, Reason.HOP_LIMIT: 1, Reason.LOCAL: 1}


def test_services_are_delivered_to_the_applications(line: Line) -> None:
    a, app, node = line.wire("a", "eth0"), line.wire("r", "xia0"), line.wire("r", "r1")
    item = packet(DAG.chain(HERE, SERVICE), b"hello", hlim=1)
    a.send(line.to_router(item))
    (frame,) = app.received()
    arrived = bytearray(item)
    arrived[7] = 1
    arrived[8 + 24] |= 0x80
    arrived[8 + 28 + 24] |= 0x80
    assert frame == BROADCAST + line.ports[0].mac + b"\xc0\xde" + arrived
    app.send(BROADCAST + line.ports[0].mac + b"\xc0\xde" + packet(DAG.chain(FAR), b"back"))
    b = line.wire("b", "eth0")
    app.send(BROADCAST + line.ports[0].mac + b"\xc0\xde" + packet(DAG.chain(FAR), b"again"))
    assert b.received()[-1].endswith(b"again")
    assert not node.waiting()


def test_a_tap_may_bring_frames_in_pages(line: Line) -> None:
    with line.spaces.entered("r"):
        tap = open_tap("tap0")
    try:
        ip("-n", line.spaces["r"], "link", "set", "tap0", "mtu", str(MTU))
        ip("-n", line.spaces["r"], "link", "set", "tap0", "up")
        line.add_port(3, "tap0")
        b = line.wire("b", "eth0")
        item = packet(DAG.chain(FAR, HERE), bytes(8800))
        os.write(tap, line.ports[3].mac + bytes(6) + b"\xc0\xde" + item)
        assert b.received() == [forwarded(line, item)]
        assert line.engine.counters(3).reasons[Reason.FAILED] == 0
    finally:
        os.close(tap)


def test_the_egress_queue_shapes(line: Line) -> None:
    """40 packets of 1500 octets at 10 Mbit/s, 3000 octets of them at once: 45.6 ms on the wire."""
    subprocess.run(
        ["tc", "-n", line.spaces["r"], "qdisc", "add", "dev", "r2", "root"]
        + ["tbf", "rate", "10mbit", "burst", "3000", "limit", "1000000"],
        check=True,
        timeout=20,
    )
    a, b = line.wire("a", "eth0"), line.wire("b", "eth0")
    item = packet(DAG.chain(FAR), bytes(1500 - 14 - 8 - 3 * 28))
    started = time.monotonic()
    for _ in range(40):
        a.send(line.to_router(item))
    assert len(b.received(40)) == 40
    assert time.monotonic() - started > 0.044


def test_a_port_can_be_given_back_and_taken_again(line: Line) -> None:
    a, b, node = line.wire("a", "eth0"), line.wire("b", "eth0"), line.wire("r", "r1")
    frame = line.to_router(packet(DAG.chain(FAR), b"one"))
    line.detach(1)
    line.detach(1)
    a.send(frame)
    assert node.received() == [frame] and not b.waiting()
    line.add_port(1, "r1")
    line.add_port(1, "r1")
    line.engine.disable()
    line.engine.disable()
    a.send(frame)
    assert node.received() == [frame] and not b.waiting()
    line.engine.enable()
    a.send(frame)
    assert len(b.received()) == 1 and not node.waiting()


CHILD = """
import sys
from pathlib import Path
from tests.fastpath.line import FAR, NEIGHBOUR
from xiatb.fastpath.engine import Fastpath
from xiatb.fastpath.routes import Kind, Route
path, port, egress, dst, src = sys.argv[1:]
engine = Fastpath.load(Path(path))
engine.set_route(FAR.key, Route(Kind.FORWARD, int(egress), 2, bytes.fromhex(dst), bytes.fromhex(src)))
engine.enable()
engine.attach(int(port), 1)
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.read()
"""


def child(line: Line, object_path: Path) -> subprocess.Popen[str]:
    """A process that holds an engine of its own on R's port towards A."""
    ports = line.ports
    numbers = [str(ports[1].ifindex), str(ports[2].ifindex)]
    arguments = [str(object_path), *numbers, line.mac_b.hex(), ports[2].mac.hex()]
    process = subprocess.Popen(
        ["ip", "netns", "exec", line.spaces["r"], sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPO,
    )
    assert next_line(process.stdout) == "ready"
    return process


def passes(a: Wire, b: Wire, node: Wire, frame: bytes) -> bool:
    """Whether a frame is left to the node's socket rather than forwarded."""
    a.send(frame)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if node.received(1, 0.01):
            return True
        if b.waiting():
            return False
    raise AssertionError("the frame has got lost")


def test_a_dead_process_forwards_nothing(line: Line, object_path: Path) -> None:
    a, b, node = line.wire("a", "eth0"), line.wire("b", "eth0"), line.wire("r", "r1")
    line.detach(1)
    frame = line.to_router(packet(DAG.chain(FAR), b"x"))
    for _ in range(2):
        process = child(line, object_path)
        try:
            assert not passes(a, b, node, frame), "the next process takes the place of the dead one's filter"
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=20)
        deadline = time.monotonic() + 2
        while not passes(a, b, node, frame):
            assert time.monotonic() < deadline, "the dead process still forwards"
