"""Real node processes in namespaces that a test made: the smallest lab there is."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.node.namespaces import Namespaces
from xiatb.identity.keys import KeyPair
from xiatb.node import membership
from xiatb.node.config import NodeConfig, PortConfig
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

ROOT = Path(__file__).resolve().parent.parent.parent
READY_TIMEOUT = 30.0
TOLD_TIMEOUT = 90.0
"""Longest work of an application between two lines: 100 MB over a bad link."""


def key_of(name: str) -> KeyPair:
    return KeyPair.from_seed(name.encode().ljust(32, b"\0"))


class Client:
    """A blocking client of a control socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(READY_TIMEOUT)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")
        self.events: list[dict[str, Any]] = []
        self._id = 0

    def send(self, op: str, **fields: object) -> int:
        self._id += 1
        self.socket.sendall(json.dumps({"id": self._id, "op": op, **fields}).encode() + b"\n")
        return self._id

    def read(self) -> dict[str, Any]:
        try:
            line = self.file.readline()
        except TimeoutError as error:
            raise AssertionError(f"the node said nothing for {READY_TIMEOUT:g} s: {self.events}") from error
        if not line:
            raise ConnectionResetError("control socket closed")
        message: dict[str, Any] = json.loads(line)
        return message

    def answer(self, number: int) -> dict[str, Any]:
        while True:
            message = self.read()
            if "event" in message:
                self.events.append(message)
            elif message["id"] == number:
                return message

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        message = self.answer(self.send(op, **fields))
        assert message["ok"], message
        result: dict[str, Any] = message["result"]
        return result

    def error(self, op: str, **fields: object) -> str:
        message = self.answer(self.send(op, **fields))
        assert not message["ok"], message
        return str(message["error"]["code"])

    def wait_event(self, name: str) -> dict[str, Any]:
        for message in self.events:
            if message["event"] == name:
                self.events.remove(message)
                return message
        deadline = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < deadline:
            message = self.read()
            if message.get("event") == name:
                return message
            if "event" in message:
                self.events.append(message)
        raise AssertionError(f"no event {name!r} in {READY_TIMEOUT:g} s, but {self.events}")

    def wait_traffic(self, device: str, frames: int = 100) -> None:
        """Until so many more frames have left by this interface."""

        def sent() -> int:
            return next(int(port["tx"]) for port in self.ask("status")["ports"] if port["ifname"] == device)

        wanted = sent() + frames
        deadline = time.monotonic() + READY_TIMEOUT
        while (now := sent()) < wanted:
            assert time.monotonic() < deadline, f"{wanted - now} of {frames} frames have not left by {device}"

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class App(subprocess.Popen[bytes]):
    """A process whose lines `told` reads."""

    read = b""
    """What it has told beyond the last line that was read."""


class MiniLab:
    """Namespaces, node processes and applications of one test."""

    def __init__(self, namespaces: Namespaces, tmp: Path) -> None:
        self.net = namespaces
        self.tmp = tmp
        self.nodes: dict[str, App] = {}
        self.apps: list[App] = []
        self.ports: dict[str, list[PortConfig]] = {}
        self.kinds: dict[str, tuple[str, str]] = {}
        self.clients: list[Client] = []

    def node(self, name: str, kind: str, ad: str = "") -> None:
        self.net.add(name)
        self.ports[name] = []
        self.kinds[name] = (kind, ad)

    def link(self, a: str, b: str, mtu: int = 1500, role_b: str = "link") -> None:
        device_a, device_b = f"eth{len(self.ports[a])}", f"eth{len(self.ports[b])}"
        self.net.link(a, device_a, b, device_b, mtu)
        self.ports[a].append(PortConfig(device_a, mtu=mtu))
        self.ports[b].append(PortConfig(device_b, mtu=mtu, role=role_b))

    def state(self, name: str) -> Path:
        return self.tmp / name

    def hid(self, name: str) -> XID:
        return key_of(name).xid(XidType.HID)

    def ad(self, name: str) -> XID:
        return key_of(name).xid(XidType.AD)

    def locator(self, name: str, ad: str) -> DAG:
        return DAG.host(self.ad(ad), self.hid(name))

    def config(self, name: str, **changes: Any) -> NodeConfig:
        kind, ad = self.kinds[name]
        state = self.state(name)
        state.mkdir(mode=0o700, exist_ok=True)
        key_of(name).save(state / "hid.pem", overwrite=True)
        config = NodeConfig(
            name=name, kind=kind, state_dir=state, hid_key=state / "hid.pem", lab=self.net.tag,
            ports=self.ports[name], names=self.tmp / "hosts.xia",
        )  # fmt: skip
        if ad:
            key = key_of(ad)
            config.ad = str(key.xid(XidType.AD))
            config.ad_public = key.public.hex()
            config.ad_cert = membership.issue(key, self.hid(name)).hex()
        for field, value in changes.items():
            setattr(config, field, value)
        return config

    def start(self, name: str, **changes: Any) -> Client:
        config = self.config(name, **changes)
        config.save(config.state_dir / "node.json")
        read, write = os.pipe()
        self.nodes[name] = self._spawn(
            name,
            ["-m", "xiatb.node", str(config.state_dir / "node.json")],
            {"XIATB_READY_FD": str(write)},
            write,
        )
        os.close(write)
        with os.fdopen(read) as ready:
            assert select.select([ready], [], [], READY_TIMEOUT)[0], f"{name} is not ready: {self.log(name)}"
            message = json.loads(ready.readline() or "{}")
        assert message.get("ready"), (message, self.log(name))
        return self.client(name)

    def log(self, name: str) -> str:
        path = self.state(name) / "node.log"
        return path.read_text() if path.exists() else ""

    def client(self, name: str) -> Client:
        client = Client(self.state(name) / "control.sock")
        self.clients.append(client)
        return client

    def joined(self, name: str) -> Client:
        """A client of a node that has a locator."""
        client = self.client(name)
        if client.ask("subscribe")["dag"] is None:
            client.wait_event("locator")
        return client

    def _spawn(
        self, name: str, arguments: list[str], environment: dict[str, str], *fds: int, **keywords: Any
    ) -> App:
        with self.net.entered(name):
            return App(
                [sys.executable, *arguments], env={**os.environ, **environment}, pass_fds=fds, cwd=ROOT,
                start_new_session=True, **keywords,
            )  # fmt: skip

    def app(self, name: str, module: str, *arguments: str) -> App:
        """Runs `python -m module arguments` on a node, with pipes."""
        environment = {"XIA_CONTROL": str(self.state(name) / "control.sock")}
        app = self._spawn(
            name, ["-m", module, *arguments], environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.apps.append(app)
        return app

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        process = self.nodes.pop(name)
        process.send_signal(number)
        return process.wait(10)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        processes = [*self.apps, *self.nodes.values()]
        for process in processes:  # all before the first wait: each one's sockets take the kernel long
            if process.poll() is None:
                process.kill()
        for process in processes:
            process.wait(10)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        for name in self.ports:
            if self.log(name) and os.environ.get("XIATB_TEST_LOGS"):
                sys.stderr.write(f"--- {name}\n{self.log(name)}")


def told(app: App, seconds: float = TOLD_TIMEOUT) -> Any:
    """The next line that an application told, {} when it has ended without one."""
    assert app.stdout is not None
    deadline = time.monotonic() + seconds
    while b"\n" not in app.read:
        if not select.select([app.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise AssertionError(f"{app.args!r} told nothing for {seconds:g} s")
        piece = os.read(app.stdout.fileno(), 1 << 16)
        if not piece:
            break
        app.read += piece
    line, _, app.read = app.read.partition(b"\n")
    return json.loads(line or "{}")


def ask_until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    """Each try takes a round trip to the node."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
