"""Attaches a classifier to the ingress of an interface: rtnetlink by `struct`, no pyroute2.

`clsact` and `cls_bpf` in direct-action mode are in kernel 6.1 and 6.18 alike (TCX links need 6.6). Formats:
<linux/rtnetlink.h>, <linux/pkt_sched.h>, <linux/pkt_cls.h>; host byte order but for the ethertype.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from xiatb.fastpath.errors import FastpathError
from xiatb.wire.xip import ETH_P_XIP

PRIORITY = 0xC0DE
"""Ours runs behind filters that a user adds without a priority of their own (those get 0xC000 and less)."""
HANDLE = 1
FILTER_NAME = b"xiatb"

_RTM_NEWQDISC, _RTM_NEWTFILTER, _RTM_DELTFILTER = 36, 44, 45
_F_REQUEST, _F_ACK, _F_EXCL, _F_CREATE = 1, 4, 0x200, 0x400
_NLMSG_ERROR = 2
_CLSACT_PARENT, _CLSACT_HANDLE, _INGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS = 6, 7, 8
_DIRECT_ACTION = 1
_HEADER = struct.Struct("=IHHII")
_TCMSG = struct.Struct("=BxxxiIII")
_GONE = (errno.ENODEV, errno.ENOENT, errno.EINVAL)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _request(kind: int, flags: int, body: bytes) -> int:
    """One request; returns 0 or the kernel's error number."""
    message = _HEADER.pack(_HEADER.size + len(body), kind, _F_REQUEST | _F_ACK | flags, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        sock.send(message)
        answer = sock.recv(65536)
    if _HEADER.unpack_from(answer)[1] != _NLMSG_ERROR:
        return errno.EPROTO
    (number,) = struct.unpack_from("=i", answer, _HEADER.size)
    return -int(number)


def _filter(ifindex: int, options: bytes) -> bytes:
    info = PRIORITY << 16 | socket.htons(ETH_P_XIP)
    return _TCMSG.pack(0, ifindex, HANDLE, _INGRESS, info) + _attribute(_TCA_KIND, b"bpf\0") + options


def attach(ifindex: int, program: int) -> None:
    """Runs a program (its descriptor) on XIP frames that come in by an interface of this namespace.

    Makes the `clsact` qdisc when it is missing, and replaces what an earlier process of ours left there.
    Raises FastpathError.
    """
    body = _TCMSG.pack(0, ifindex, _CLSACT_HANDLE, _CLSACT_PARENT, 0) + _attribute(_TCA_KIND, b"clsact\0")
    number = _request(_RTM_NEWQDISC, _F_CREATE | _F_EXCL, body)
    if number not in (0, errno.EEXIST):
        raise FastpathError(f"clsact on interface {ifindex}: {os.strerror(number)}", number)
    options = (
        _attribute(_TCA_BPF_FD, struct.pack("=I", program))
        + _attribute(_TCA_BPF_NAME, FILTER_NAME + b"\0")
        + _attribute(_TCA_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION))
    )
    number = _request(_RTM_NEWTFILTER, _F_CREATE, _filter(ifindex, _attribute(_TCA_OPTIONS, options)))
    if number:
        raise FastpathError(f"eBPF filter on interface {ifindex}: {os.strerror(number)}", number)


def detach(ifindex: int) -> None:
    """Takes our filter away again; harmless when it, or the interface, is gone. Raises FastpathError.

    `clsact` stays: others may have filters on it.
    """
    number = _request(_RTM_DELTFILTER, 0, _filter(ifindex, b""))
    if number and number not in _GONE:
        raise FastpathError(f"eBPF filter on interface {ifindex}: {os.strerror(number)}", number)
