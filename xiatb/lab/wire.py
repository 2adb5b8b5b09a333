"""The middle of a link: where its delay, loss and the like sit, out of the nodes' sight.

An impairable link is two veth pairs, a:eth0 -- middle and middle -- b:eth0. The middle's two ends are in the
lab's namespace `ALL_LINKS` and joined by a four-instruction eBPF program each, which sends what comes in at
one end out at the other; the kernel does the forwarding. netem goes on the sending end; a delay-line process
takes the program's place. Either comes and goes while the lab is up: the nodes' interfaces, sockets and
captures stay as they are.

The program is loaded with bpf(2) (layout: `union bpf_attr` of <linux/bpf.h>), without clang or libbpf, and
attached with clsact and cls_bpf, which kernels have had since 4.5.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from functools import cache
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from xiatb.lab.netlink import LinkError, index_of

ALL_LINKS = "all.links"
"""The helper node of a lab's middles; the dot keeps it apart from names in a topology."""

_BPF_NUMBERS = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _SCHED_CLS = 5, 3
_REDIRECT = 23
_ATTRIBUTES = struct.Struct("=IIQQIIQII16s")
_INGRESS = 0xFFFFFFF2


def middle_ports(index: int) -> tuple[str, str]:
    """Names of a link's middle ends, towards its first and its second endpoint."""
    return f"l{index}a", f"l{index}b"


def redirect_program(ifindex: int) -> bytes:
    """eBPF: return bpf_redirect(ifindex, 0), that is out at that interface, through its qdisc."""
    instructions = [
        (0xB4, 1, ifindex),  # w1 = ifindex
        (0xB4, 2, 0),  # w2 = 0
        (0x85, 0, _REDIRECT),  # call bpf_redirect
        (0x95, 0, 0),  # exit
    ]
    return b"".join(struct.pack("=BBhi", code, register, 0, value) for code, register, value in instructions)


@cache
def can_forward() -> bool:
    """Whether this kernel lets us load the program."""
    try:
        os.close(_load(redirect_program(1)))
    except OSError:
        return False
    return True


def forward(socket_: Any, source: str, target: str) -> None:
    """Let the kernel send what comes in at `source` out at `target`; both are where `socket_` (pyroute2)
    is."""
    hold(socket_, source)
    try:
        descriptor = _load(redirect_program(index_of(socket_, target)))
    except OSError as error:
        raise LinkError(f"{source}: eBPF program refused: {error.strerror}") from error
    try:
        index = index_of(socket_, source)
        socket_.tc("add", "clsact", index)
        socket_.tc(
            "add-filter", "bpf", index, parent=_INGRESS, fd=descriptor, name="xiatb-link", direct_action=True
        )
    finally:
        os.close(descriptor)


def hold(socket_: Any, source: str) -> None:
    """Stop forwarding what comes in at `source`; a delay line's packet socket gets it, or nobody."""
    try:
        socket_.tc("del", "clsact", index_of(socket_, source))
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EINVAL):  # there is none
            raise


def _load(program: bytes) -> int:
    """Descriptor of a loaded classifier. Raises OSError."""
    number = _BPF_NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(f"bpf(2) has no known number on {platform.machine()}")
    code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"MIT")
    attributes = ctypes.create_string_buffer(
        _ATTRIBUTES.pack(
            *(_SCHED_CLS, len(program) // 8, ctypes.addressof(code), ctypes.addressof(licence)),
            *(0, 0, 0, 0, 0, b"xiatb_link"),
        )
    )
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.syscall(number, _PROG_LOAD, attributes, _ATTRIBUTES.size))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor
