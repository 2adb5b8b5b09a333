"""The rest of a node's interfaces, by netlink and ioctl: what Mininet's links leave to be set.

Everything here is synchronous and works on the namespace given by path; pyroute2's own event loop forbids
calling it from inside a running asyncio loop, so the supervisor calls it from threads or before its loop
runs.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from xiatb.errors import XiatbError
from xiatb.lab.namespaces import inside
from xiatb.node import rtnetlink

_SIOCETHTOOL = 0x8946
# linux/ethtool.h: ETHTOOL_SRXCSUM, STXCSUM, SSG, STSO, SGSO, SGRO
_OFFLOADS = (0x15, 0x17, 0x19, 0x1F, 0x24, 0x2C)
_GLINK = 0x0A
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


class LinkError(XiatbError):
    """An interface could not be made or set."""


@contextlib.contextmanager
def routes(netns: Path) -> Iterator[Any]:
    """A pyroute2 socket in a namespace; the thread itself is there for the body, too."""
    with inside(netns), IPRoute() as socket_:
        try:
            yield socket_
        except NetlinkError as error:
            raise LinkError(f"{netns.name}: {error}") from error


def index_of(_socket: Any, name: str) -> int:
    """Interface index, within `routes`. Raises LinkError when there is none of that name.

    By ioctl: asking over netlink means a dump of all interfaces, which is slow where there are hundreds."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise LinkError(f"no interface {name}") from error


def set_up(netns: Path, name: str, *, mtu: int, altname: str, mac: str | None = None) -> None:
    """Offloads off, MTU, MAC, readable altname (the lab's mark), up."""
    with inside(netns):
        set_up_here(name, mtu=mtu, altname=altname, mac=mac)


def set_up_here(name: str, *, mtu: int, altname: str, mac: str | None = None) -> None:
    """`set_up` of an interface in this thread's namespace. Raises LinkError."""
    offloads_off(name)
    address = None if mac is None else bytes.fromhex(mac.replace(":", ""))
    try:
        rtnetlink.add_altname(name, altname)
        rtnetlink.set_link(name, up=True, mtu=mtu, mac=address)
    except rtnetlink.NetlinkError as error:
        raise LinkError(error.message) from error


def prepare(netns: Path) -> None:
    """A fresh namespace: no IPv6 on anything, loopback up."""
    with inside(netns):
        for scope in ("all", "default"):
            switch = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
            if switch.exists():
                switch.write_text("1")
        rtnetlink.set_link("lo", up=True)


def add_tap(netns: Path, name: str) -> None:
    """A persistent tap without packet information, as QEMU wants it."""
    with inside(netns):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
            fcntl.ioctl(descriptor, _TUNSETIFF, request)
            fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
        except OSError as error:
            raise LinkError(f"{netns.name}: cannot make tap {name}: {error.strerror}") from error
        finally:
            os.close(descriptor)


def offloads_off(name: str) -> None:
    """Checksum and segmentation offloads off, so that frames are on the veth what they are on a wire.

    What a device does not have is passed over. The caller is in the interface's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in _OFFLOADS:
            value = array.array("B", struct.pack("=II", command, 0))
            request = struct.pack("@16sP", name.encode(), value.buffer_info()[0]).ljust(40, b"\0")
            with contextlib.suppress(OSError):
                fcntl.ioctl(sock, _SIOCETHTOOL, request)


def tell_carrier(netns: Path, name: str) -> None:
    """Have the kernel tell at once that an interface got or lost its carrier, and not when it likes to.

    It holds such news back for up to a second (net/core/link_watch.c), only not of virtual interfaces, which
    it knows by a number that is not their peer's; but the ends of a veth pair between two namespaces may have
    the same number. ETHTOOL_GLINK makes it tell what is due."""
    request = array.array("B", struct.pack("=II", _GLINK, 0))
    with inside(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        asked = struct.pack("@16sP", name.encode(), request.buffer_info()[0]).ljust(40, b"\0")
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, asked)
        except OSError as error:
            raise LinkError(f"{netns.name}: carrier of {name}: {error.strerror}") from error


def counters(netns: Path) -> dict[str, dict[str, Any]]:
    """Name -> {"state","mtu","mac","rx_bytes","tx_bytes","rx_packets","tx_packets","tx_dropped"} of every
    interface."""
    table = {}
    with routes(netns) as socket_:
        for link in socket_.get_links():
            stats = link.get("stats64") or {}
            table[str(link.get("ifname"))] = {
                "state": link.get("operstate"),
                "mtu": link.get("mtu"),
                "mac": link.get("address"),
                **{
                    key: stats.get(key)
                    for key in ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "tx_dropped")
                },
            }
    return table
