"""The internal veth pair `xia0` <-> `xia0r` of a node, over which its applications reach the graph.

The lab may have made the pair already; then it is taken as it is, apart from its MTU and state.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from pathlib import Path

from xiatb.node import rtnetlink
from xiatb.node.config import INTERNAL_APP, INTERNAL_NODE

_SIOCETHTOOL = 0x8946
_OFFLOADS = {"rx": 0x15, "tx": 0x17, "sg": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""ETHTOOL_S* commands of <linux/ethtool.h>."""


def disable_offloads(name: str) -> None:
    """Turns checksum and segmentation offloads of an interface off, so that frames are what the wire shows.

    Offloads that the driver does not have, or does not let go, are passed over.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in _OFFLOADS.values():
            value = array.array("B", struct.pack("=II", command, 0))
            address, _ = value.buffer_info()
            request = struct.pack("@16sP", name.encode(), address).ljust(40, b"\0")
            try:
                fcntl.ioctl(sock, _SIOCETHTOOL, request)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise


def disable_ipv6(name: str) -> None:
    """Keeps the kernel from speaking IPv6 on an interface; nothing to do without IPv6 in the kernel."""
    switch = Path("/proc/sys/net/ipv6/conf") / name / "disable_ipv6"
    if switch.exists():
        switch.write_text("1", encoding="ascii")


def ensure_internal_link(mtu: int) -> None:
    """Makes `xia0` and `xia0r` if they are missing, sets their MTU, and brings both up.

    Raises rtnetlink.NetlinkError (without CAP_NET_ADMIN: EPERM).
    """
    if rtnetlink.get_link(INTERNAL_APP) is None or rtnetlink.get_link(INTERNAL_NODE) is None:
        rtnetlink.add_veth(INTERNAL_APP, INTERNAL_NODE, mtu)
    for name in (INTERNAL_APP, INTERNAL_NODE):
        disable_ipv6(name)
        disable_offloads(name)
        rtnetlink.set_link(name, up=True, mtu=mtu)
