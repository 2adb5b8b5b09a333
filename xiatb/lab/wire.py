"""The middle of a link: where its delay, loss and the like sit, out of the nodes' sight.

An impairable link is two veth pairs, a:eth0 -- middle and middle -- b:eth0. The middle's two ends are in the
lab's namespace `ALL_LINKS` and joined by a four-instruction eBPF program each, which sends what comes in at
one end out at the other; the kernel does the forwarding. netem goes on the sending end; a delay-line process
takes the program's place. Either comes and goes while the lab is up: the nodes' interfaces, sockets and
captures stay as they are.

Where frames are only to be lost, a longer program does that (`lossprogram`), without netem or a process.
Programs are loaded with bpf(2), without clang or libbpf, and attached with clsact and cls_bpf, which kernels
have had since 4.5.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from xiatb.fastpath.bpf import load_classifier
from xiatb.fastpath.errors import FastpathError
from xiatb.lab.netlink import LinkError, index_of

ALL_LINKS = "all.links"
"""The helper node of a lab's middles; the dot keeps it apart from names in a topology."""

_REDIRECT = 23
_INGRESS = 0xFFFFFFF2
_ETH_P_ALL = 0x0003


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
    except (OSError, FastpathError):
        return False
    return True


def forward(
    socket_: Any, source: str, target: str, program: Callable[[int], bytes] = redirect_program
) -> None:
    """Let the kernel send what comes in at `source` out at `target`; both are where `socket_` (pyroute2)
    is.

    `program` gives the eBPF code for the target's interface number. It takes the place of what forwarded
    there before in one go: every frame meets one or the other. Raises LinkError."""
    try:
        descriptor = _load(program(index_of(socket_, target)))
    except OSError as error:
        raise LinkError(f"{source}: eBPF program refused: {error.strerror}") from error
    try:
        index = index_of(socket_, source)
        _add_clsact(socket_, index)
        socket_.tc(
            "replace-filter",
            *("bpf", index, 1),
            parent=_INGRESS,
            prio=1,
            protocol=_ETH_P_ALL,
            fd=descriptor,
            name="xiatb-link",
            direct_action=True,
        )
    finally:
        os.close(descriptor)


def join(socket_: Any, a: str, b: str) -> None:
    """`forward` both ways, losing nothing."""
    forward(socket_, a, b)
    forward(socket_, b, a)


def _add_clsact(socket_: Any, index: int) -> None:
    try:
        socket_.tc("add", "clsact", index)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def hold(socket_: Any, source: str) -> None:
    """Stop forwarding what comes in at `source`; a delay line's packet socket gets it, or nobody."""
    try:
        socket_.tc("del", "clsact", index_of(socket_, source))
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EINVAL):  # there is none
            raise


def _load(program: bytes) -> int:
    return load_classifier(program, b"MIT", b"xiatb_link")
