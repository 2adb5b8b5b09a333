"""Classic BPF programs for packet sockets: which XIP frames an application's socket sees.

Two filters exist. `match_intent` lets through only XIP frames whose final intent is one XID: the
socket of an application on the internal link `xia0` (or, with attach=direct, on the uplink).
`exclude_intents` is its complement for a list of XIDs: with attach=direct the node process puts it
on its own socket so that Python is not woken for frames that the applications take themselves.

The final intent is always the last destination node (xia-core clicknet/xia.h:43-82), so its place
is `22 + 28 * (dnode - 1)` from the start of the Ethernet frame, with dnode the byte at frame
offset 19. Loads beyond the end of a frame make the kernel drop it (Documentation/networking/
filter.rst), so a truncated frame never reaches a filtered socket.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterable, Sequence

from xiatb.errors import XiatbError

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
MAX_EXCLUDED = 256
"""Most XIDs one `exclude_intents` program may list (11 instructions each, kernel limit 4096)."""

_ETH_P_XIP = 0xC0DE
_DNODE_OFFSET = 14 + 5
_FIRST_NODE = 14 + 8
_NODE_SIZE = 28
_KEY_WORDS = 6

_LD_W_IND = 0x40
_LD_H_ABS = 0x28
_LD_B_ABS = 0x30
_ALU_SUB_K = 0x14
_ALU_MUL_K = 0x24
_JEQ_K = 0x15
_RET_K = 0x06
_TAX = 0x07
_ACCEPT = 0x40000

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, k) of `struct sock_filter`."""


class FilterError(XiatbError):
    """A packet filter cannot be made or the kernel refused it."""


def _load_intent_offset(on_other: int) -> list[Instruction]:
    """Puts 28 * (dnode - 1) in X; a frame that is no XIP frame, or has no destination, returns `on_other`."""
    return [
        (_LD_H_ABS, 0, 0, 12),
        (_JEQ_K, 1, 0, _ETH_P_XIP),
        (_RET_K, 0, 0, on_other),
        (_LD_B_ABS, 0, 0, _DNODE_OFFSET),
        (_JEQ_K, 0, 1, 0),
        (_RET_K, 0, 0, on_other),
        (_ALU_SUB_K, 0, 0, 1),
        (_ALU_MUL_K, 0, 0, _NODE_SIZE),
        (_TAX, 0, 0, 0),
    ]


def _compare(key: bytes, on_equal: int) -> list[Instruction]:
    """Returns `on_equal` when the 24 bytes at frame offset 22 + X are `key`, else falls through.

    Ids are hashes, so their last word tells most keys apart: words are compared from the last.
    """
    if len(key) != _KEY_WORDS * 4:
        raise FilterError(f"an XID key has 24 bytes, not {len(key)}")
    words = struct.unpack("!6I", key)
    program: list[Instruction] = []
    for index in reversed(range(_KEY_WORDS)):
        remaining = 2 * index + 1
        program.append((_LD_W_IND, 0, 0, _FIRST_NODE + 4 * index))
        program.append((_JEQ_K, 0, remaining, words[index]))
    program.append((_RET_K, 0, 0, on_equal))
    return program


def match_intent(key: bytes) -> list[Instruction]:
    """Program that accepts XIP frames whose final intent has the 24-byte `key`, and nothing else."""
    return [*_load_intent_offset(0), *_compare(key, _ACCEPT), (_RET_K, 0, 0, 0)]


def exclude_intents(keys: Iterable[bytes]) -> list[Instruction]:
    """Program that drops XIP frames whose final intent is one of `keys` (24 bytes each), accepts the rest.

    Frames other than XIP, and frames without destination, pass, so that the graph can count them.
    Raises FilterError with more than MAX_EXCLUDED keys.
    """
    wanted = list(keys)
    if len(wanted) > MAX_EXCLUDED:
        raise FilterError(f"{len(wanted)} SIDs bound: a direct attachment takes at most {MAX_EXCLUDED}")
    program = _load_intent_offset(_ACCEPT)
    for key in wanted:
        program += _compare(key, 0)
    return [*program, (_RET_K, 0, 0, _ACCEPT)]


def assemble(program: Sequence[Instruction]) -> bytes:
    """The `struct sock_filter` array of a program, host byte order, 8 bytes an instruction."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def attach(sock: socket.socket, program: Sequence[Instruction] | None) -> None:
    """Puts `program` on a socket, in place of any earlier one; None removes it.

    The kernel swaps the filter atomically, and copies it during the call. Raises FilterError.
    """
    try:
        if program is None:
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            return
        code = array.array("B", assemble(program))
        address, _ = code.buffer_info()
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), address))
    except OSError as error:
        raise FilterError(
            f"the kernel refused a filter of {len(program or ())} instructions: {error}"
        ) from error
