"""A - R1 ... Rn - B for packet rates: bare namespaces at the ends, node processes as the routers between.

Every router forwards XIP by static routes of its node process and IPv4 by its kernel. What arrives at B is
for a MAC that B does not have: the kernel counts and drops it, whichever protocol it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.identity.keys import KeyPair
from xiatb.lab.client import ControlClient
from xiatb.lab.namespaces import inside
from xiatb.lab.netlink import offloads_off
from xiatb.lab.paths import NETNS_ROOT
from xiatb.lab.runner import HostRunner
from xiatb.node import membership
from xiatb.node.config import NodeConfig, PortConfig
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

FAR_MAC = bytes.fromhex("02fefefefefe")
FAR = XID(XidType.AD, b"\x0f" * 20)
_SID = XID(XidType.SID, b"\x05" * 20)
_MTU = 1500


def mac(link: int, end: int) -> bytes:
    """MAC address of a link's left (0) or right (1) end."""
    return bytes([2, 0xBE, 0, 0, link, end])


class Line:
    """`with Line(routers, data_plane) as line:` ; data_plane "ebpf", "click", or "bare" for a Python loop
    that only receives and sends. Everything it makes has a name of its own and is removed at the end."""

    def __init__(self, routers: int, data_plane: str) -> None:
        self._tag = f"xtb{secrets.token_hex(4)}"
        self._engine = data_plane
        self._routers = routers
        self._host = HostRunner()
        self._stack = contextlib.ExitStack()
        self._state = Path()
        self._hids = [KeyPair.generate() for _ in range(routers)]
        self._ad = KeyPair.generate()
        self._far_hid = XID(XidType.HID, b"\x0e" * 20)

    def __enter__(self) -> Line:
        try:
            self._state = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def netns(self, place: int) -> Path:
        """Namespace file: 0 is A, 1 to n the routers, n + 1 is B."""
        return NETNS_ROOT / f"{self._tag}-{place}"

    def xip_frame(self, size: int) -> bytes:
        """A frame at A with an XIP packet of `size` bytes, of short addresses when it is a short one."""
        hid = self._far_hid
        short = size < 300
        dst = DAG.host(FAR, hid) if short else DAG.service(FAR, hid, _SID)
        src = DAG((_SID,), ((),), (0,)) if short else dst
        empty = xip.build(xip.NXT_DATA, dst, src, b"")
        packet = xip.build(xip.NXT_DATA, dst, src, bytes(size - len(empty)))
        return mac(0, 1) + mac(0, 0) + b"\xc0\xde" + packet

    def ipv4_frame(self, size: int) -> bytes:
        """A frame at A with an IPv4/UDP packet of `size` bytes (RFC 791, RFC 768)."""
        head = bytearray.fromhex("4500 0000 0000 0000 4011 0000 0a4d0001 0a4dc801")
        head[2:4] = size.to_bytes(2, "big")
        total = sum(int.from_bytes(head[place : place + 2], "big") for place in range(0, 20, 2))
        head[10:12] = (0xFFFF - ((total >> 16) + (total & 0xFFFF))).to_bytes(2, "big")
        udp = (9).to_bytes(2, "big") * 2 + (size - 20).to_bytes(2, "big") + bytes(2)
        return mac(0, 1) + mac(0, 0) + b"\x08\x00" + bytes(head) + udp + bytes(size - 28)

    def arrived(self) -> int:
        """Frames that B has received since it was made."""
        with inside(self.netns(self._routers + 1)):
            text = Path("/proc/thread-self/net/dev").read_text(encoding="ascii")
        return int(next(line for line in text.splitlines() if "eth0:" in line).split(":")[1].split()[1])

    # Making it

    def _build(self) -> None:
        for place in range(self._routers + 2):
            name = self.netns(place).name
            self._host.run(["ip", "netns", "add", name])
            self._stack.callback(self._host.run, ["ip", "netns", "del", name], check=False)
            self._sysctls(place)
        for link in range(self._routers + 1):
            self._link(link)
        for place in range(1, self._routers + 1):
            self._ipv4(place)
            if self._engine == "bare":
                self._loop(place)
            else:
                self._node(place)
        for place in range(1, self._routers + 1):
            if self._engine != "bare":
                self._routes(place)

    def _sysctls(self, place: int) -> None:
        with inside(self.netns(place)):
            root = Path("/proc/sys/net")
            for scope in ("all", "default"):
                (root / "ipv4/conf" / scope / "rp_filter").write_text("0")
                with contextlib.suppress(FileNotFoundError):
                    (root / "ipv6/conf" / scope / "disable_ipv6").write_text("1")
            if 0 < place <= self._routers:
                (root / "ipv4/ip_forward").write_text("1")

    def _link(self, link: int) -> None:
        ends = ((link, "eth1" if link else "eth0"), (link + 1, "eth0"))
        words: list[str] = []
        for end, (place, port) in enumerate(ends):
            words += ["name", port, "netns", self.netns(place).name, "address", mac(link, end).hex(":")]
            words += ["type", "veth", "peer"] if end == 0 else []
        self._host.run(["ip", "link", "add", *words])
        for end, (place, port) in enumerate(ends):
            self._ip(place, "addr", "add", f"10.77.{link}.{end + 1}/24", "dev", port)
            self._ip(place, "link", "set", port, "mtu", str(_MTU), "up")
            with inside(self.netns(place)):
                offloads_off(port)

    def _ip(self, place: int, *words: str) -> None:
        self._host.run(["ip", "-n", self.netns(place).name, *words])

    def _next_mac(self, place: int) -> bytes:
        return mac(place, 1) if place < self._routers else FAR_MAC

    def _ipv4(self, place: int) -> None:
        gateway = f"10.77.{place}.2"
        lladdr = self._next_mac(place).hex(":")
        self._ip(place, "neigh", "add", gateway, "lladdr", lladdr, "dev", "eth1", "nud", "permanent")
        self._ip(place, "route", "add", "10.77.200.0/24", "via", gateway, "dev", "eth1")

    def _loop(self, place: int) -> None:
        argv = [sys.executable, "-m", "xiatb.experiments.bench.bareloop", "eth0", "eth1"]
        with inside(self.netns(place)):
            loop = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
        self._stack.callback(_end, loop)
        assert loop.stdout is not None
        if loop.stdout.readline() != b"ready\n":
            raise XiatbError("the bare loop did not start")

    def _node(self, place: int) -> None:
        state = self._state / str(place)
        state.mkdir(mode=0o700)
        key = self._hids[place - 1]
        key.save(state / "hid.pem")
        config = NodeConfig(
            name=f"r{place}", kind="router", state_dir=state, hid_key=state / "hid.pem", lab=self._tag,
            ad=str(self._ad.xid(XidType.AD)), ad_public=self._ad.public.hex(),
            ad_cert=membership.issue(self._ad, key.xid(XidType.HID)).hex(),
            ports=[PortConfig("eth0", mtu=_MTU), PortConfig("eth1", mtu=_MTU)], data_plane=self._engine,
        )  # fmt: skip
        config.save(state / "node.json")
        read, write = os.pipe()
        with inside(self.netns(place)):
            node = subprocess.Popen(
                [sys.executable, "-m", "xiatb.node", str(state / "node.json")],
                env={**os.environ, "XIATB_READY_FD": str(write)},
                pass_fds=(write,),
                start_new_session=True,
            )
        os.close(write)
        self._stack.callback(_end, node)
        with os.fdopen(read) as ready:
            message = json.loads(ready.readline() or "{}")
        if not message.get("ready"):
            raise XiatbError(f"router {place} did not start: {message.get('error', 'it has ended')}")
        if self._engine == "click":
            _away_from_generator(node.pid)

    def _routes(self, place: int) -> None:
        last = place == self._routers
        hid = self._far_hid if last else self._hids[place].xid(XidType.HID)
        with ControlClient(self._state / str(place) / "control.sock") as client:
            neighbour = f"{hid} {self._next_mac(place).hex(':')}"
            client.request("handlers", write="lc2/xarpq.insert", value=neighbour)
            client.request("handlers", write="core/rt_AD.set4", value=f"{FAR},2,{hid},0")


def _away_from_generator(pid: int) -> None:
    cores = os.sched_getaffinity(pid)
    if len(cores) > 1:
        os.sched_setaffinity(pid, {max(cores)})


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


@contextlib.contextmanager
def lines(*wanted: tuple[int, str]) -> Iterator[list[Line]]:
    """Several lines at once, each (routers, data plane)."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Line(routers, engine)) for routers, engine in wanted]
