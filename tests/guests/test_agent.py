"""The agent itself, as a process of this machine on one end of a pseudo-terminal; no guest, no root."""

import base64
import contextlib
import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
import tty

import pytest

from xiatb.guests.agent.pattern import digest_of_file, digest_of_region
from xiatb.guests.agent.protocol import LineDecoder
from xiatb.guests.client import AgentClient, AgentError, fixed

RUN = "import sys; from xiatb.guests.agent.main import main; sys.exit(main(sys.argv[1]))"


class Bridge:
    """Stands in for QEMU: a UNIX socket with one client at a time, bridged to the pseudo-terminal."""

    def __init__(self, path, master):
        self.path = path
        self.master = master
        self.noise = b""
        self.closing = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(5)
        self._listener.settimeout(0.1)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self.closing:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                self._swallow()
                continue
            with client, contextlib.suppress(OSError):
                self._serve(client)

    def _swallow(self):
        while select.select([self.master], [], [], 0)[0]:
            os.read(self.master, 4096)

    def _serve(self, client):
        if self.noise:
            client.sendall(self.noise)
        while not self.closing:
            ready, _, _ = select.select([client, self.master], [], [], 0.1)
            if client in ready:
                data = client.recv(4096)
                if not data:
                    return
                os.write(self.master, data)
            if self.master in ready:
                client.sendall(os.read(self.master, 4096))

    def close(self):
        self.closing = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._listener.close()


@pytest.fixture
def agent(tmp_path):
    """(client, bridge, process) of an agent with one writer."""
    master, slave = pty.openpty()
    tty.setraw(master)
    config = {
        "name": "test",
        "test": True,
        "serial": os.ttyname(slave),
        "control": str(tmp_path / "control.sock"),
        "services": [{"name": "w", "kind": "writer", "options": {"path": str(tmp_path / "disk")}}],
    }
    (tmp_path / "guest.json").write_text(json.dumps(config))
    bridge = Bridge(tmp_path / "agent.sock", master)  # before there is a process that it could leave behind
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "guest.json")])
    yield AgentClient(fixed(bridge.path)), bridge, process
    process.kill()
    process.wait(10)
    bridge.close()
    os.close(master)
    os.close(slave)


def test_ready_uptime_and_unknown_ops(agent):
    client, _, _ = agent
    state = client.wait_ready(20.0)
    assert state["services"] == {"w": {"kind": "writer", "state": "up", "message": ""}}
    assert state["node"] == "none"
    first, second = (client.request({"op": "uptime"})["monotonic_ns"] for _ in range(2))
    assert second > first
    with pytest.raises(AgentError) as caught:
        client.request({"op": "dance"})
    assert caught.value.code == "EINVAL"


def test_files_and_the_writer(agent, tmp_path):
    client, _, _ = agent
    client.wait_ready(20.0)
    path = str(tmp_path / "file")
    assert client.request({"op": "write_file", "path": path, "size": 100_001, "seed": 4})[
        "sha256"
    ] == digest_of_file(4, 100_001)
    assert client.request({"op": "checksum", "path": path})["sha256"] == digest_of_file(4, 100_001)
    order = {
        "op": "service",
        "service": "w",
        "command": "start",
        "memory_rate": 1 << 24,
        "disk_rate": 1 << 22,
    }
    client.request({**order, "memory_set": 1 << 21, "disk_set": 1 << 20})
    end = time.monotonic() + 20
    while client.request({"op": "counters"})["w"]["disk"]["writes"] < 20 and time.monotonic() < end:
        select.select([], [], [], 0.05)
    state = client.request({"op": "service", "service": "w", "command": "verify"})
    for name in ("memory", "disk"):
        target = state[name]
        assert target["writes"] >= 20
        assert target["digest"] == digest_of_region(target["seed"], target["chunks"], target["writes"])
    stopped = client.request({"op": "service", "service": "w", "command": "stop"})
    assert stopped["running"] is False


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "checksum"},
        {"op": "checksum", "path": "/does/not/exist"},
        {"op": "write_file", "path": "/x", "size": -1, "seed": 1},
        {"op": "exec", "argv": "ls"},
        {"op": "exec_poll", "job": 99},
        {"op": "service", "service": "nobody", "command": "start"},
        {"op": "service", "service": "w", "command": "fly"},
        {"op": "service", "service": "w", "command": "start", "memory_rate": "fast"},
    ],
)
def test_wrong_requests_are_refused_and_the_agent_lives(agent, request_):
    client, _, _ = agent
    client.wait_ready(20.0)
    with pytest.raises(AgentError):
        client.request(request_)
    assert client.request({"op": "ready"})["ready"] is True


def test_commands_with_a_bounded_answer_and_in_pieces(agent):
    client, _, _ = agent
    client.wait_ready(20.0)
    answer = client.request({"op": "exec", "argv": ["sh", "-c", "echo a; echo b >&2; exit 3"]})
    assert (answer["code"], base64.b64decode(answer["stdout"]), base64.b64decode(answer["stderr"])) == (
        3,
        b"a\n",
        b"b\n",
    )
    huge = client.request({"op": "exec", "argv": ["seq", "100000"]})
    assert huge["cut"] is True
    output = []
    assert client.execute(["seq", "40000"], lambda name, data: output.append(data), 60.0) == 0
    assert b"".join(output) == b"".join(b"%d\n" % n for n in range(1, 40001))


def test_noise_on_the_line_in_both_directions(agent):
    client, bridge, _ = agent
    client.wait_ready(20.0)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(bridge.path))
        sock.sendall(b"\x00\xff garbage \n" + b"[" * 5000 + b"\n" + b'{"op":"uptime"' + b"x" * 20_000)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10.0)
        while sock.recv(4096):
            pass
    assert client.request({"op": "ready"})["malformed"] >= 2
    bridge.noise = (
        b'{"id": 1, "ok": true, "result"\xff\xfe[[[[\n123\n{"id":"x","ok":true,"result":{}}\nhalf a li'
    )
    assert client.request({"op": "uptime"})["monotonic_ns"] > 0


def test_a_dead_service_is_reported_and_others_go_on(agent):
    client, _, process = agent
    client.wait_ready(20.0)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[0]), 9)
    end = time.monotonic() + 10
    while client.request({"op": "ready"})["services"]["w"]["state"] != "failed" and time.monotonic() < end:
        select.select([], [], [], 0.05)
    assert client.request({"op": "ready"})["services"]["w"]["state"] == "failed"
    assert "error" in client.request({"op": "counters"})["w"]


def test_power_off_ends_it(agent):
    client, _, process = agent
    client.wait_ready(20.0)
    assert client.request({"op": "poweroff"}) == {}
    assert process.wait(10) == 0


def test_the_decoder_of_the_client_is_bounded():
    decoder = LineDecoder()
    for _ in range(100):
        decoder.feed(b"x" * 65536)
    assert len(decoder._buffer) <= decoder.limit


class NodeStub:
    """A node's control socket that signs whatever it is asked to, and notes the requests."""

    def __init__(self, path):
        self.asked = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        client, _ = self._listener.accept()
        with client, client.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line)
                self.asked.append(request)
                result = {"hid": "HID:" + "0" * 40} if request["op"] == "subscribe" else {"join": "ab"}
                answer = {"id": request["id"], "ok": True, "result": result}
                client.sendall(json.dumps(answer).encode() + b"\n")


def test_the_guests_node_signs_for_a_move(agent, tmp_path):
    client, _, _ = agent
    client.wait_ready(20.0)
    for request in ({"op": "delegate", "invite": "00"}, {"op": "consent", "destination": "SID:x"}):
        with pytest.raises(AgentError) as caught:  # there is no node
            client.request(request)
        assert caught.value.code == "EIO"
    long = {"op": "delegate", "invite": "0" * 1025}
    for request in ({"op": "delegate"}, long, {"op": "consent", "destination": 1}):
        with pytest.raises(AgentError) as caught:
            client.request(request)
        assert caught.value.code == "EINVAL"
    node = NodeStub(tmp_path / "control.sock")
    assert client.request({"op": "delegate", "invite": "00ff"}) == {"join": "ab"}
    assert [(r["op"], r.get("invite")) for r in node.asked] == [("subscribe", None), ("delegate", "00ff")]
