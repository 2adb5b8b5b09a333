"""The lab that streams and links are measured in: one router, a pair of hosts at each MTU."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xiatb.errors import DeadlineError, XiatbError
from xiatb.experiments.ownlab import own_lab
from xiatb.lab.client import LabClient
from xiatb.lab.context import in_node, last_words, node_environment
from xiatb.lab.linkbench import End
from xiatb.lab.namespaces import inside
from xiatb.lab.paths import NETNS_ROOT, LabPaths, netns_name
from xiatb.lab.runner import HostRunner
from xiatb.lab.state import LabState, read_state

TOPOLOGY = """
name: bench
nodes:
  h1: {kind: host}
  h2: {kind: host}
  j1: {kind: host}
  j2: {kind: host}
  r1: {kind: router, ad: ad1}
links:
  - {endpoints: [h1, r1], mtu: 1500}
  - {endpoints: [h2, r1], mtu: 1500}
  - {endpoints: [j1, r1], mtu: 9000}
  - {endpoints: [j2, r1], mtu: 9000}
"""
HOSTS = ("h1", "h2", "j1", "j2")
"""in the order of the router's ports"""
PAIRS = {1500: ("h1", "h2"), 9000: ("j1", "j2")}


@dataclass(frozen=True)
class Stage:
    """A lab that is up, with IPv4 between its hosts too."""

    lab: str
    state: LabState
    client: LabClient
    logs: Path

    def end(self, node: str, port: str = "eth0") -> End:
        """A node's interface for `linkbench`."""
        return End(NETNS_ROOT / netns_name(self.lab, node), port)

    def set_link(self, host: str, **values: str) -> str:
        """Gives the link of a host and the router these parameters and no others; the backend's name."""
        request = {"a": host, "b": "r1", "set": values, "replace": True}
        return str(self.client.request("link_set", timeout=60, params=request)["backend"])

    def app(self, node: str, *arguments: str, module: str = "xiatb.experiments.bench.streamapp") -> App:
        """Starts `python -m MODULE ARGUMENTS` in a node."""
        return self.program(node, [sys.executable, "-m", module, *arguments])

    def program(self, node: str, argv: list[str]) -> App:
        """Starts a program in a node; what it prints is read from it."""
        environment = node_environment(LabPaths(self.lab), self.state, node)
        log = self.logs / f"{node}-{secrets.token_hex(4)}.log"
        with log.open("wb") as errors:
            child = subprocess.Popen(
                in_node(self.state, node, argv),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        return App(child, log)


@dataclass(frozen=True)
class App:
    """A program in a node; `with` ends it."""

    child: subprocess.Popen[bytes]
    log: Path

    def __enter__(self) -> App:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()

    def line(self) -> str:
        """The next line that it tells. Raises XiatbError with its last words when it has ended."""
        assert self.child.stdout is not None
        text = self.child.stdout.readline().decode().strip()
        if not text:
            self.child.wait()
            raise XiatbError(f"the program of a benchmark has failed: {last_words(self.log)}")
        return text

    def rest(self) -> str:
        """All that it tells from now until it ends."""
        assert self.child.stdout is not None
        return self.child.stdout.read().decode()

    def finish(self, timeout: float) -> None:
        """Waits for its end. Raises DeadlineError."""
        try:
            self.child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise DeadlineError(f"a benchmark's program has not ended after {timeout:g} s") from error


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Brings the lab up under a name of its own; down again at the end, whatever happens."""
    lab = f"b{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "bench.yaml"
        file.write_text(TOPOLOGY, encoding="utf-8")
        with own_lab(file, lab, data_plane="ebpf"):
            _ipv4(lab)
            with LabClient(lab) as client:
                yield Stage(lab, read_state(LabPaths(lab)), client, Path(directory))


def address(host: str) -> str:
    """A host's IPv4 address."""
    return f"10.78.{HOSTS.index(host)}.1"


def _ipv4(lab: str) -> None:
    host = HostRunner()
    router = netns_name(lab, "r1")
    for number, name in enumerate(HOSTS):
        network, netns = f"10.78.{number}", netns_name(lab, name)
        host.run(["ip", "addr", "add", f"{network}.2/24", "dev", f"eth{number}"], netns=router)
        host.run(["ip", "addr", "add", f"{network}.1/24", "dev", "eth0"], netns=netns)
        host.run(["ip", "route", "add", "10.78.0.0/16", "via", f"{network}.2"], netns=netns)
    with inside(NETNS_ROOT / router):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
