"""IPv4 addresses and routes in this thread's network namespace, by rtnetlink; for the IP baseline.

Formats: `struct ifaddrmsg` of <linux/if_addr.h>, `struct rtmsg` of <linux/rtnetlink.h>, host byte order.
"""

from __future__ import annotations

import errno
import socket
import struct

from xiatb.node import rtnetlink

_RTM_NEWADDR, _RTM_DELADDR, _RTM_NEWROUTE, _RTM_DELROUTE = 20, 21, 24, 25
_ACK, _REPLACE, _CREATE = 0x4, 0x100, 0x400
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_DST, _OIF, _VIA, _PREFSRC = 1, 4, 5, 7
_MAIN, _STATIC, _UNICAST, _LINK, _NOWHERE = 254, 4, 1, 253, 255


def add_address(device: str, address: str) -> None:
    """Give an interface an address "A.B.C.D/LENGTH". Raises NetlinkError (EEXIST, ...), OSError."""
    _address(_RTM_NEWADDR, _ACK | _CREATE, device, address)


def delete_address(device: str, address: str) -> None:
    """Take it away; fine when it is not there. Raises NetlinkError, OSError when there is no such device."""
    try:
        _address(_RTM_DELADDR, _ACK, device, address)
    except rtnetlink.NetlinkError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise


def _address(kind: int, flags: int, device: str, address: str) -> None:
    where, _, length = address.partition("/")
    raw = socket.inet_aton(where)
    body = _IFADDR.pack(socket.AF_INET, int(length), 0, 0, socket.if_nametoindex(device))
    body += rtnetlink.attribute(_IFA_LOCAL, raw) + rtnetlink.attribute(_IFA_ADDRESS, raw)
    rtnetlink.request(kind, flags, body, f"address {address} of {device}")


def set_route(network: str, *, via: str = "", device: str = "", source: str = "") -> None:
    """Make or change the route to "A.B.C.D/LENGTH", via a next hop or straight to a device, with a preferred
    source address. Raises NetlinkError, OSError when there is no such device."""
    address, _, length = network.partition("/")
    scope = 0 if via else _LINK
    body = _RTMSG.pack(socket.AF_INET, int(length), 0, 0, _MAIN, _STATIC, scope, _UNICAST, 0)
    if int(length):
        body += rtnetlink.attribute(_DST, socket.inet_aton(address))
    if via:
        body += rtnetlink.attribute(_VIA, socket.inet_aton(via))
    if device:
        body += rtnetlink.attribute(_OIF, struct.pack("=I", socket.if_nametoindex(device)))
    if source:
        body += rtnetlink.attribute(_PREFSRC, socket.inet_aton(source))
    rtnetlink.request(_RTM_NEWROUTE, _ACK | _REPLACE | _CREATE, body, f"route {network}")


def delete_route(network: str) -> None:
    """Remove a route; fine when there is none. Raises NetlinkError."""
    address, _, length = network.partition("/")
    body = _RTMSG.pack(socket.AF_INET, int(length), 0, 0, _MAIN, 0, _NOWHERE, 0, 0)
    body += rtnetlink.attribute(_DST, socket.inet_aton(address))
    try:
        rtnetlink.request(_RTM_DELROUTE, _ACK, body, f"route {network}")
    except rtnetlink.NetlinkError as error:
        if error.errno != errno.ESRCH:
            raise
