"""Network namespaces that a test makes for itself, and removes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True, timeout=20)


class Namespaces:
    """Makes namespaces and veth links with names of its own; `close` removes exactly those."""

    def __init__(self) -> None:
        self.tag = f"xt{secrets.token_hex(3)}"
        self._names: dict[str, str] = {}

    def add(self, name: str) -> str:
        full = f"{self.tag}-{name}"
        ip("netns", "add", full)
        self._names[name] = full
        ip("-n", full, "link", "set", "lo", "up")
        return full

    def __getitem__(self, name: str) -> str:
        return self._names[name]

    def link(self, a: str, dev_a: str, b: str, dev_b: str, mtu: int = 1500) -> None:
        """A veth between two namespaces, both ends up."""
        ip("link", "add", dev_a, "netns", self[a], "type", "veth", "peer", "name", dev_b, "netns", self[b])
        for name, device in ((a, dev_a), (b, dev_b)):
            ip("-n", self[name], "link", "set", device, "mtu", str(mtu))
            with self.entered(name):
                switch = Path(f"/proc/thread-self/net/../../../sys/net/ipv6/conf/{device}/disable_ipv6")
                with contextlib.suppress(OSError):
                    switch.write_text("1")
            ip("-n", self[name], "link", "set", device, "up")

    @contextlib.contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Runs the body of a `with` in a namespace (this thread only)."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{self[name]}", "rb") as there:
            if libc.setns(there.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                if libc.setns(home.fileno(), 0x40000000) != 0:
                    raise OSError(ctypes.get_errno(), "setns back")

    def close(self) -> None:
        for full in self._names.values():
            subprocess.run(["ip", "netns", "del", full], check=False, capture_output=True, timeout=20)
        self._names.clear()
