"""Just enough of rtnetlink, by `struct`: read a link, make a veth pair, set a link, and watch links.

Node processes must start fast (also in an emulated guest), so pyroute2 stays out. Formats:
`struct nlmsghdr`, `struct ifinfomsg`, `struct rtattr` of <linux/rtnetlink.h>, attribute numbers of
<linux/if_link.h>; all fields are in host byte order.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

from xiatb.errors import XiatbError

NOTIFY_PEERS = 4
"""IFLA_EVENT_NOTIFY_PEERS: the kernel re-announces its addresses, as a guest does after a migration."""

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_NLMSG_ERROR = 2
_F_REQUEST, _F_ACK, _F_EXCL, _F_CREATE = 1, 4, 0x200, 0x400
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_EVENT = 1, 3, 4, 18, 44
_IFLA_NET_NS_FD, _IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 28, 52, 53
_RTM_NEWLINKPROP, _NESTED = 108, 0x8000
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_RTMGRP_LINK = 1
_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")


class NetlinkError(XiatbError):
    """The kernel refused a netlink request; `errno` says why."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number


class Link(NamedTuple):
    """One network interface as the kernel tells it. `up`: administratively up and carrier there."""

    ifindex: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    event: int = 0
    deleted: bool = False


def attribute(kind: int, value: bytes) -> bytes:
    """`struct rtattr` and its value, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > len(data):
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _parse_link(kind: int, body: bytes) -> Link | None:
    """A Link from the body of an RTM_NEWLINK or RTM_DELLINK message; None for anything else."""
    if kind not in (_RTM_NEWLINK, _RTM_DELLINK) or len(body) < _IFINFO.size:
        return None
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = _attributes(body[_IFINFO.size :])
    mtu = found.get(_IFLA_MTU, b"")
    event = found.get(_IFLA_EVENT, b"")
    return Link(
        ifindex=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
        mac=found.get(_IFLA_ADDRESS, b""),
        mtu=int.from_bytes(mtu, "little" if struct.pack("=H", 1)[0] else "big"),
        up=flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING,
        event=struct.unpack("=I", event)[0] if len(event) == 4 else 0,
        deleted=kind == _RTM_DELLINK,
    )


def parse_messages(data: bytes) -> list[Link]:
    """The link messages of one datagram of the kernel; a broken tail is ignored."""
    links = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            break
        link = _parse_link(kind, data[offset + _HEADER.size : offset + length])
        if link is not None:
            links.append(link)
        offset += (length + 3) & ~3
    return links


class LinkMonitor:
    """A socket that tells of every change of a link in this network namespace.

    `fileno()` is for an event loop; `drain()` returns the changes and whether some were lost (the
    socket overflowed), in which case the caller should look at every link again.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_LINK))

    def fileno(self) -> int:
        """The descriptor to watch for reading."""
        return self._socket.fileno()

    def drain(self) -> tuple[list[Link], bool]:
        """All changes that wait, oldest first, and True when the kernel dropped some."""
        links: list[Link] = []
        lost = False
        while True:
            try:
                links += parse_messages(self._socket.recv(65536))
            except BlockingIOError:
                return links, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def request(kind: int, flags: int, body: bytes, what: str) -> list[Link]:
    """One request and its answer: the links told. Raises NetlinkError."""
    message = _HEADER.pack(_HEADER.size + len(body), kind, _F_REQUEST | flags, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        sock.send(message)
        answer = sock.recv(65536)
    _, answer_kind, _, _, _ = _HEADER.unpack_from(answer)
    if answer_kind == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        if number:
            raise NetlinkError(f"{what}: {os.strerror(-number)}", -number)
        return []
    return parse_messages(answer)


def get_link(name: str) -> Link | None:
    """The interface called `name` in this network namespace, or None when there is none."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    try:
        links = request(_RTM_GETLINK, 0, body, f"link {name}")
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return links[0] if links else None


def add_veth(name: str, peer: str, mtu: int | None = None, namespaces: tuple[int, int] | None = None) -> None:
    """Makes a veth pair, both ends down, with `mtu` if given, in the two `namespaces` (descriptors) or here.

    Raises NetlinkError (EEXIST, EPERM, ...)."""
    ends = []
    for number, end in enumerate((name, peer)):
        body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, end.encode() + b"\0")
        if mtu is not None:
            body += attribute(_IFLA_MTU, struct.pack("=I", mtu))
        if namespaces is not None:
            body += attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespaces[number]))
        ends.append(body)
    body, peer_body = ends
    info = attribute(_IFLA_INFO_KIND, b"veth\0") + attribute(
        _IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer_body)
    )
    request(
        _RTM_NEWLINK, _F_ACK | _F_CREATE | _F_EXCL, body + attribute(_IFLA_LINKINFO, info), f"veth {name}"
    )


def set_link(name: str, *, up: bool | None = None, mtu: int | None = None, mac: bytes | None = None) -> None:
    """Sets an interface's MAC and MTU, then brings it up or down, in one request. Raises NetlinkError."""
    flags = 0 if up is None else _IFF_UP
    body = _IFINFO.pack(0, 0, 0, _IFF_UP if up else 0, flags) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    if mtu is not None:
        body += attribute(_IFLA_MTU, struct.pack("=I", mtu))
    if mac is not None:
        body += attribute(_IFLA_ADDRESS, mac)
    request(_RTM_NEWLINK, _F_ACK, body, f"link {name}")


def add_altname(name: str, altname: str) -> None:
    """Gives an interface one more name, of up to 127 bytes. Raises NetlinkError."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name.encode() + b"\0")
    body += attribute(_IFLA_PROP_LIST | _NESTED, attribute(_IFLA_ALT_IFNAME, altname.encode() + b"\0"))
    request(_RTM_NEWLINKPROP, _F_ACK | _F_CREATE | _F_EXCL, body, f"link {name}, altname {altname}")
