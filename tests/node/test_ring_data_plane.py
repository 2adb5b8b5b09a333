"""A node with either engine: applications, errors, counters, captures, and what happens without eBPF."""

from __future__ import annotations

import json
import select
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.node.minilab import MiniLab, ask_until, told
from tests.node.namespaces import ip, needs_root
from xiatb.fastpath import probe
from xiatb.wire import xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

pytestmark = [
    needs_root,
    pytest.mark.netns,
    pytest.mark.skipif(not probe.available()[0], reason="eBPF does not load here"),
]
APPS = "tests.node.apps"
SID_HERE = XID(XidType.SID, bytes.fromhex("30000ff0") + bytes(16))


def line(lab: MiniLab, engine: str, **changes: Any) -> None:
    """h1 - r1 - h2, the second link narrower, every node with this engine."""
    lab.node("r1", "router", ad="ad1")
    for name, mtu in (("h1", 9000), ("h2", 1500)):
        lab.node(name, "host")
        lab.link(name, "r1", mtu)
    for name in ("r1", "h1", "h2"):
        lab.start(name, data_plane=engine, **(changes if name == "r1" else {}))
    for name in ("h1", "h2"):
        lab.joined(name)


def count(lab: MiniLab, node: str, handler: str) -> int:
    return int(lab.client(node).ask("handlers", read=handler)["value"])


class Raw:
    """An application on h1 that writes its packets itself, and reads what comes for its SID."""

    def __init__(self, lab: MiniLab) -> None:
        self.lab = lab
        self.client = lab.client("h1")
        self.client.ask("bind", sid=str(SID_HERE))
        self.source = DAG.service(lab.ad("ad1"), lab.hid("h1"), SID_HERE)
        with lab.net.entered("h1"):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.bind(("xia0", xip.ETH_P_XIP))

    def send(self, dag: DAG, payload: bytes, hlim: int = 250) -> None:
        packet = xip.build(xip.NXT_XDGRAM, dag, self.source, payload, hlim=hlim)
        self.socket.send(b"\xff" * 6 + b"\2" * 6 + b"\xc0\xde" + packet)

    def error(self, dag: DAG, payload: bytes = b"12345678", hlim: int = 250) -> tuple[int, int, int | None]:
        """(type, code, MTU) of the XCMP error that a packet brings."""
        self.send(dag, payload, hlim)
        while select.select([self.socket], [], [], 5)[0]:
            frame, address = self.socket.recvfrom(10000)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            header = xip.parse(frame, 14)
            assert header.intent_key == SID_HERE.key and header.nxt == xip.NXT_XCMP
            message = xcmp.parse(header.payload)
            return message.type, message.code, message.mtu
        raise AssertionError("no answer")


@pytest.mark.parametrize("engine", ["click", "ebpf"])
def test_both_engines_do_the_same(lab: MiniLab, engine: str) -> None:
    line(lab, engine)
    status = lab.client("r1").ask("status")
    assert (status["engine"], status["data_plane"]) == (engine, engine)
    assert {port["engine"] for port in status["ports"]} == {engine}
    assert status["batch_io"] == ("python" if status["batch_io_why"] else "c")
    h1 = lab.client("h1")
    assert (
        h1.ask("ping", dag=str(lab.locator("h2", "ad1")), count=3, interval=0.01, timeout=2)["received"] == 3
    )
    dag = told(lab.app("h2", APPS, "datagram_echo", "svc"))["dag"]
    for place in ("h1", "h2", "r1"):
        assert told(lab.app(place, APPS, "datagrams", dag, "50"))["got"] == 50
    server = lab.app("h2", APPS, "sink", "svc2")
    sender = lab.app("h1", APPS, "source", told(server)["dag"], str(5 << 20), "7")
    assert told(sender)["connected"]
    assert told(sender)["digest"] == told(server)["digest"]
    raw = Raw(lab)
    there = DAG.service(lab.ad("ad1"), lab.hid("h2"), XID(XidType.SID, bytes(20)))
    assert raw.error(lab.locator("h9", "ad1"))[0] == xcmp.UNREACHABLE
    assert raw.error(lab.locator("h2", "ad1"), hlim=2)[0] == xcmp.TIME_EXCEEDED
    assert raw.error(lab.locator("h2", "ad1"), bytes(4000)) == (xcmp.UNREACHABLE, xcmp.CODE_TOO_BIG, 1500)
    assert raw.error(there)[0] == xcmp.UNREACHABLE
    came_by = lab.client("r1").ask("status")["ports"][1]
    passed, fast = came_by["passed"], came_by["fastpath"]
    assert (fast["hits"] > 1000) == (engine == "click") and fast["enabled"]
    if engine == "ebpf":
        assert passed["hop_limit"] == passed["too_big"] == 1 and passed["no_route"] >= 1
    else:
        assert passed == {}
    for name in ("h1", "r1", "h2"):
        assert "Traceback" not in lab.log(name)


def test_handlers_count_what_the_engine_does(lab: MiniLab) -> None:
    line(lab, "ebpf")
    dag = told(lab.app("h2", APPS, "datagram_echo", "svc"))["dag"]
    names = ("lc1/in.count", "lc1/in.bytes", "lc1/check.count", "lc1/device.count", "lc2/device.count")
    before = {name: count(lab, "r1", name) for name in names}
    rx = lab.client("r1").ask("status")["ports"][1]["rx"]
    assert told(lab.app("h1", APPS, "datagrams", dag, "100"))["got"] == 100
    after = {name: count(lab, "r1", name) - before[name] for name in names}
    assert all(100 <= after[name] < 140 for name in names if "bytes" not in name), after
    assert 100 * 150 < after["lc1/in.bytes"] < 100 * 400
    assert lab.client("r1").ask("status")["ports"][1]["rx"] - rx >= 100

    r1, raw = lab.client("r1"), Raw(lab)
    gone = XID(XidType.AD, b"g" * 20)
    r1.ask("handlers", write="core/rt_AD.set", value=f"{gone} DISCARD")
    for _ in range(5):
        raw.send(DAG.chain(gone), b"")
    with lab.net.entered("h1"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind(("eth0", 0))
        for _ in range(3):
            wire.send(b"\xff" * 6 + b"\2" * 6 + b"\xc0\xde\2" + bytes(60))
    ask_until(lambda: (count(lab, "r1", "core/rt_AD.drops"), count(lab, "r1", "lc1/check.drops")) == (5, 3))
    assert "version\t3" in r1.ask("handlers", read="lc1/check.drop_details")["value"]
    r1.ask("handlers", write="lc1/check.reset")
    assert count(lab, "r1", "lc1/check.drops") == 0


def test_route_changes_reach_the_engine_at_once(lab: MiniLab) -> None:
    line(lab, "ebpf")
    h1, r1 = lab.client("h1"), lab.client("r1")
    target, hid = str(lab.locator("h2", "ad1")), lab.hid("h2")

    def answer(patience: float = 5.0) -> str:
        h1.events.clear()
        h1.ask("ping", dag=target, timeout=patience)
        return str(h1.events[0]["event"])

    assert answer() == "pong"
    route = next(row for row in r1.ask("routes")["HID"] if row["xid"] == str(hid))
    r1.ask("handlers", write="core/rt_HID.remove", value=str(hid))
    assert answer() == "unreachable"
    r1.ask("handlers", write="core/rt_HID.set4", value=f"{hid},{route['port']},{route['nexthop']},0")
    assert answer() == "pong"
    r1.ask("handlers", write="core/rt_HID.enabled", value="0")
    assert r1.ask("status")["engine_why"] == "route table core/rt_HID is switched off"
    assert answer(0.3) == "ping_lost", "not even the error finds its way"
    r1.ask("handlers", write="core/rt_HID.enabled", value="1")
    assert r1.ask("status")["engine"] == "ebpf" and answer() == "pong"
    r1.ask("handlers", write="lc2/mtu.mtu", value="180")
    assert answer() == "unreachable"
    r1.ask("handlers", write="lc2/mtu.mtu", value="1500")
    r1.ask("handlers", write="lc2/xarpq.delete", value=str(hid))
    assert answer() == "pong", "asked for by XARP"


def test_a_link_that_comes_back_is_accelerated_again(lab: MiniLab) -> None:
    line(lab, "ebpf")
    h2 = lab.joined("h2")
    ip("-n", lab.net["r1"], "link", "set", "eth1", "down")
    ip("-n", lab.net["r1"], "link", "set", "eth1", "mtu", "1400")
    ip("-n", lab.net["r1"], "link", "set", "eth1", "up")
    if h2.ask("locator")["dag"] is None:
        h2.wait_event("locator")
    raw = Raw(lab)
    target = lab.locator("h2", "ad1")
    ask_until(lambda: lab.client("h1").ask("ping", dag=str(target), timeout=0.5)["received"])
    assert raw.error(target, bytes(1300)) == (xcmp.UNREACHABLE, xcmp.CODE_TOO_BIG, 1400)


def test_a_killed_process_leaves_nothing_that_forwards(lab: MiniLab) -> None:
    line(lab, "ebpf")
    with lab.net.entered("h2"):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sniffer.bind(("eth0", xip.ETH_P_XIP))
    raw = Raw(lab)
    dag = DAG.chain(lab.ad("ad1"), lab.hid("h2"))
    raw.send(dag, b"")
    assert select.select([sniffer], [], [], 5)[0]
    lab.stop("r1", signal.SIGKILL)
    while select.select([sniffer], [], [], 0.5)[0]:
        sniffer.recv(10000)
    raw.send(dag, b"")
    assert not select.select([sniffer], [], [], 0.3)[0]
    sniffer.close()


def test_auto_falls_back_and_ebpf_is_refused(lab: MiniLab, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = lab.tmp / "broken.o"
    broken.write_bytes(b"\x7fELF, or not")
    for path, words in ((lab.tmp / "none.o", "is missing"), (broken, "is no eBPF object")):
        monkeypatch.setenv("XIATB_EBPF_OBJECT", str(path))
        name = path.stem
        lab.node(name, "router", ad="ad1")
        status = lab.start(name, data_plane="auto").ask("status")
        assert status["engine"] == "click" and words in status["engine_why"]
        assert lab.log(name).count(words) == 1
        assert lab.stop(name) == 0
        with pytest.raises(AssertionError, match=f"data_plane ebpf: .*{words}"):
            lab.start(name, data_plane="ebpf")
        assert lab.nodes.pop(name).wait(10) == 4


def test_elements_of_ones_own_see_every_packet(lab: MiniLab) -> None:
    """A counter before port 2: packets that leave there, or come in there, are Click's; the rest is not."""
    lab.node("r1", "router", ad="ad1")
    for name in ("h1", "h2", "h3"):
        lab.node(name, "host")
        lab.link(name, "r1")
    lab.start("r1", data_plane="click")
    usual = (lab.state("r1") / "node.click").read_text()
    lab.stop("r1")
    own = lab.tmp / "own.click"
    own.write_text(usual.replace("out[2] -> lc2", "out[2] -> seen :: Counter -> lc2"))
    assert own.read_text() != usual
    lab.start("r1", data_plane="ebpf", click=own)
    for name in ("h1", "h2", "h3"):
        lab.start(name)
        lab.joined(name)
    ports = lab.client("r1").ask("status")["ports"]
    assert [port["engine"] for port in ports] == ["ebpf", "ebpf", "click", "ebpf"]
    assert "seen (Counter)" in ports[2]["engine_why"]
    dag = told(lab.app("h2", APPS, "datagram_echo", "svc"))["dag"]
    before = count(lab, "r1", "seen.count")
    assert told(lab.app("h1", APPS, "datagrams", dag, "50"))["got"] == 50
    assert count(lab, "r1", "seen.count") - before >= 50
    assert lab.client("h1").ask("ping", dag=str(lab.locator("h3", "ad1")), timeout=2)["received"] == 1


def test_captures_show_every_packet(lab: MiniLab) -> None:
    line(lab, "ebpf")
    target = lab.locator("h2", "ad1")
    with lab.net.entered("r1"):
        wires = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(2)]
        for number, wire in enumerate(wires):
            wire.bind((f"eth{number}", 0x0003))
    raw = Raw(lab)
    for _ in range(10):
        raw.send(target, b"mark")
    for wire in wires:
        seen = 0
        while seen < 10 and select.select([wire], [], [], 5)[0]:
            seen += wire.recv(10000).endswith(b"mark")
        assert seen == 10
        wire.close()


def test_node_json_says_so(tmp_path: Path) -> None:
    """The default and the refusal of anything else are part of the file's format."""
    from xiatb.errors import InvalidFileError
    from xiatb.node.config import load_config

    path = tmp_path / "node.json"
    values = {"name": "h1", "kind": "host", "state_dir": str(tmp_path), "hid_key": str(tmp_path / "key")}
    path.write_text(json.dumps(values))
    assert load_config(path).data_plane == "auto"
    path.write_text(json.dumps({**values, "data_plane": "xdp"}))
    with pytest.raises(InvalidFileError, match="'xdp' is not one of auto, ebpf, click"):
        load_config(path)
