"""Applications on real nodes: datagrams, streams, faults."""

from __future__ import annotations

import contextlib
import errno
import json
import random
import signal

import pytest

from tests.node.minilab import MiniLab, told
from tests.node.namespaces import needs_root
from tests.node.test_ring_join import host_router_host
from xiatb.node import control_protocol
from xiatb.wire.xid import XID, XidType

pytestmark = [needs_root, pytest.mark.netns]
APPS = "tests.node.apps"


def both_joined(lab: MiniLab, mtu: int = 1500) -> None:
    host_router_host(lab, mtu)
    lab.joined("h1")
    lab.joined("h2")


def test_datagrams_and_streams_echo(lab: MiniLab) -> None:
    both_joined(lab)
    server = lab.app("h2", APPS, "datagram_echo", "svc")
    dag = told(server)["dag"]
    for place in ("h1", "h2", "r1"):
        assert told(lab.app(place, APPS, "datagrams", dag, "50"))["got"] == 50
    stream = told(lab.app("h2", APPS, "echo", "svc2"))["dag"]
    (lab.tmp / "hosts.xia").write_text(f"echo.lab.xia {stream}\n")
    for place, target in (("h1", stream), ("h2", stream), ("r1", stream), ("h1", "echo.lab.xia")):
        assert told(lab.app(place, APPS, "ask", target, "one", "two"))["answers"] == ["one", "two"]


def test_errors_of_connect(lab: MiniLab) -> None:
    both_joined(lab)
    held = lab.app("h2", APPS, "hold", "svc")
    dag = told(held)["dag"]
    refused = told(lab.app("h1", APPS, "failing", dag))
    assert refused["errno"] == errno.ECONNREFUSED and refused["seconds"] < 2
    no_such = lab.locator("h2", "ad1").with_intent(XID(XidType.SID, bytes(20)))
    assert told(lab.app("h1", APPS, "failing", str(no_such)))["errno"] == errno.EHOSTUNREACH
    assert told(lab.app("h1", APPS, "failing", "nobody.lab.xia"))["errno"] == errno.ENOENT


def test_sid_is_exclusive_and_free_after_kill(lab: MiniLab) -> None:
    both_joined(lab)
    held = lab.app("h2", APPS, "hold", "svc")
    assert told(held)["ready"]
    client = lab.client("h2")
    assert len(client.ask("status")["sids"]) == 1
    assert told(lab.app("h2", APPS, "hold", "svc"))["errno"] == errno.EADDRINUSE
    held.send_signal(signal.SIGKILL)
    held.wait(5)
    assert told(lab.app("h2", APPS, "hold", "svc"))["ready"]
    assert len(client.ask("routes")["SID"]) >= 1


def test_node_process_killed_wakes_its_applications(lab: MiniLab) -> None:
    both_joined(lab)
    held = lab.app("h2", APPS, "hold", "svc")
    assert told(held)["ready"]
    sink = told(lab.app("h2", APPS, "sink", "svc2"))["dag"]
    sender = lab.app("h2", APPS, "source", sink, str(1 << 40), "1")
    assert told(sender)["connected"]
    lab.stop("h2", signal.SIGKILL)
    assert told(held)["errno"] == errno.ENETDOWN
    assert sender.wait(10) != 0


def test_hostile_frames_are_counted(lab: MiniLab) -> None:
    both_joined(lab)
    from xiatb.node.packet_socket import PacketSocket

    with lab.net.entered("h1"):
        raw = PacketSocket("eth0", 0xC0DE)
    try:
        for size in range(0, 120, 7):
            for ethertype in (b"\xc0\xde", b"\x99\x90", b"\x99\x91"):
                raw.send(b"\xff" * 6 + b"\2" * 6 + ethertype + bytes(size))
                raw.send(b"\xff" * 6 + b"\2" * 6 + ethertype + b"\1" + b"\xff" * size)
    finally:
        raw.close()
    r1 = lab.joined("r1")
    h1 = lab.client("h1")
    assert h1.ask("ping", dag=str(lab.locator("h2", "ad1")), timeout=2)["received"] == 1
    assert int(r1.ask("handlers", read="lc1/check.drops")["value"]) > 10
    assert r1.ask("status")["stats"]["join"]["malformed"] > 10
    assert "Traceback" not in lab.log("r1")


def test_hostile_control_clients(lab: MiniLab) -> None:
    both_joined(lab)
    client = lab.client("h1")
    for fields, code in (
        ({"op": "bind"}, "EINVAL"),
        ({"op": "bind", "sid": "SID:zz"}, "EINVAL"),
        ({"op": "bind", "sid": str(lab.hid("h1"))}, "EINVAL"),
        ({"op": "bind", "sid": "SID:" + "1" * 40, "public": "00", "signature": "xx"}, "EINVAL"),
        ({"op": "bind", "sid": "SID:" + "1" * 40, "public": "00" * 32, "signature": "00" * 64}, "EACCES"),
        ({"op": "ping", "dag": "RE AD:1"}, "EINVAL"),
        ({"op": "ping", "dag": str(lab.locator("h2", "ad1")), "count": -1}, "EINVAL"),
        ({"op": "guest_expect", "hid": str(lab.hid("h2")), "port": 1}, "ENOSYS"),
        ({"op": "handlers", "read": "core/nothing.x"}, "EINVAL"),
        ({"op": "resolve", "name": "x" * 5000}, "EINVAL"),
    ):
        operation = fields.pop("op")
        assert client.error(operation, **fields) == code, (operation, fields)
    with contextlib.suppress(ConnectionError):  # cut off before all of it is sent
        client.socket.sendall(b"\0" * (control_protocol.MAX_LINE + 100_000))
    assert lab.client("h1").ask("status")["joined"]


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_stream_carries_bulk(lab: MiniLab, mtu: int) -> None:
    both_joined(lab, mtu)
    server = lab.app("h2", APPS, "sink", "svc")
    sender = lab.app("h1", APPS, "source", told(server)["dag"], str(20 << 20), "7")
    assert told(sender)["connected"]
    sent, got = told(sender), told(server)
    assert sent["digest"] == got["digest"] and got["size"] == 20 << 20


def test_random_requests_always_get_an_answer(lab: MiniLab) -> None:
    """Operations with arguments of every type: one answer each, no exception in the log, the node lives."""
    lab.node("r1", "hypervisor", ad="ad1")
    lab.node("h1", "host")
    lab.link("h1", "r1")
    rng = random.Random(6)
    lab.start("r1")
    client = lab.joined("r1")
    dag, hid = str(lab.locator("h1", "ad1")), str(lab.hid("h1"))
    values = [None, True, 0, -1, 2**70, 1.5, "", "x", "RE", dag, hid, [], {}, [1], "SID:" + "0" * 40,
              "SID:30000ff0" + "0" * 32, "00", "lc1/check.count", "core/rt_SID.add", "\ud800",
              float("nan")]  # fmt: skip
    fields = ["sid", "public", "signature", "dag", "count", "interval", "timeout", "size", "name", "read",
              "write", "value", "hid", "port"]  # fmt: skip
    operations = ["status", "locator", "bind", "unbind", "resolve", "register", "routes", "neighbours",
                  "handlers", "joined", "guest_expect", "guest_detach", "guest_wait", "ping", "nothing", 7,
                  None]  # fmt: skip
    for _ in range(600):
        request = {"op": rng.choice(operations)}
        for field in rng.sample(fields, rng.randrange(5)):
            request[field] = rng.choice(values)
        if request["op"] in ("ping", "guest_wait"):
            request["timeout"], request["count"] = rng.choice([0.001, -1, "x"]), rng.choice([1, 2, "x"])
        client._id += 1
        request["id"] = client._id
        client.socket.sendall(json.dumps(request).encode() + b"\n")
        assert "ok" in client.answer(client._id), request
    assert lab.client("r1").ask("status")["joined"]
    assert "Traceback" not in lab.log("r1"), lab.log("r1")
