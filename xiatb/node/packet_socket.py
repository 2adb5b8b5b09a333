"""One AF_PACKET socket: whole Ethernet frames of one ethertype on one interface.

Rules measured in reference/dataplane.md section 4: PACKET_IGNORE_OUTGOING, forced buffers, drain up
to 64 frames a wake-up (by one system call where batch.c is compiled), and ENOBUFS of a send means that
the egress qdisc dropped the frame. A socket outlives its interface going down and up again: the kernel
then reports ENETDOWN once.

Sockets are bound to a single ethertype, not to ETH_P_ALL: the kernel hands those only frames that no
tc-bpf program on the ingress took, so a fast path below needs no change here.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Callable, Sequence

from xiatb.errors import XiatbError
from xiatb.fastpath import batch, trains
from xiatb.node import sid_filter

DRAIN_BUDGET = batch.BURST
"""Frames taken from one socket per wake-up of the event loop."""
NODE_BUFFER = 4 << 20
"""Receive buffer of the node process, bytes of kernel memory (about twice the frame bytes)."""

_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_IGNORE_OUTGOING = 23
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

Buffer = bytes | bytearray | memoryview


class DeviceError(XiatbError):
    """A packet socket cannot be opened on an interface."""


def _set_buffer(sock: socket.socket, forced: int, plain: int, size: int) -> None:
    """Sets a socket buffer beyond the limit of sysctl when allowed to (CAP_NET_ADMIN), else up to it."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, plain, size)


class PacketSocket:
    """A non-blocking packet socket. Counters: rx, tx, tx_dropped, rx_down (times the link went down).

    To be used in the thread that made it: sockets of a thread receive into the same memory.
    """

    __slots__ = ("_batch", "_poll", "_socket", "ifname", "rx", "rx_down", "tx", "tx_dropped")

    def __init__(
        self,
        ifname: str,
        ethertype: int,
        *,
        program: Sequence[sid_filter.Instruction] | None = None,
        receive_buffer: int = NODE_BUFFER,
        send_buffer: int = 1 << 20,
    ) -> None:
        """Opens and binds. Raises DeviceError when the interface is missing or rights are."""
        self.ifname = ifname
        self.rx = self.tx = self.tx_dropped = self.rx_down = 0
        self._batch = batch.shared()
        try:
            # Protocol 0 until bind: no frame of another interface may slip in before the filter is on.
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except OSError as error:
            raise DeviceError(
                f"packet socket on {ifname}: {error}", hint="xiatb nodes run as root"
            ) from error
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            _set_buffer(self._socket, _SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer)
            _set_buffer(self._socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF, send_buffer)
            if program is not None:
                sid_filter.attach(self._socket, program)
            self._socket.bind((ifname, ethertype))
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        except OSError as error:
            self._socket.close()
            raise DeviceError(f"packet socket on {ifname}: {error}") from error

    def fileno(self) -> int:
        """The descriptor to watch for reading."""
        return self._socket.fileno()

    def set_filter(self, program: Sequence[sid_filter.Instruction] | None) -> None:
        """Replaces the classic BPF filter. Raises sid_filter.FilterError."""
        sid_filter.attach(self._socket, program)

    def receive_frames(self, budget: int = DRAIN_BUDGET) -> list[memoryview]:
        """Up to `budget` waiting frames, 64 at most. Raises OSError.

        They are views of memory that the next call of this kind overwrites: copy what must last.
        """
        try:
            frames = self._batch.frames(self._socket, budget)
        except OSError as error:
            self._receive_failed(error)
            return []
        self.rx += len(frames)
        return frames

    def drain(self, receive: Callable[[memoryview], None], budget: int = DRAIN_BUDGET) -> int:
        """Calls `receive(frame)` for each of `receive_frames`; returns how many there were."""
        frames = self.receive_frames(budget)
        for frame in frames:
            receive(frame)
        return len(frames)

    def receive_burst(self, budget: int = DRAIN_BUDGET) -> list[bytearray]:
        """As `receive_frames`, but copies that the caller may keep."""
        return list(map(bytearray, self.receive_frames(budget)))

    def receive_trains(self, budget: int = DRAIN_BUDGET) -> list[trains.Train]:
        """As `receive_frames`, but without Ethernet headers, and neighbouring segments of a stream joined as
        `xiatb.fastpath.trains` tells."""
        try:
            got = self._batch.trains(self._socket, budget)
        except OSError as error:
            self._receive_failed(error)
            return []
        self.rx += self._batch.received
        return got

    def _receive_failed(self, error: OSError) -> None:
        if error.errno != errno.ENETDOWN:
            raise error
        self.rx_down += 1

    def wait(self, seconds: float) -> bool:
        """Blocks until a frame waits, `seconds` at most; whether one does."""
        return bool(self._poll.poll(seconds * 1000))

    def send(self, frame: Buffer) -> bool:
        """Sends one whole Ethernet frame; False when it was dropped (queue full, link down, too long)."""
        try:
            self._socket.send(frame)
        except OSError as error:
            return self._send_failed(error)
        self.tx += 1
        return True

    def send_parts(self, parts: Sequence[Buffer]) -> bool:
        """Sends one frame given in pieces, without joining them in Python; False when it was dropped."""
        try:
            self._socket.sendmsg(parts)
        except OSError as error:
            return self._send_failed(error)
        self.tx += 1
        return True

    def _send_failed(self, error: OSError) -> bool:
        if not batch.is_drop(error):
            raise error
        self.tx_dropped += 1
        return False

    def send_burst(self, frames: Sequence[Buffer]) -> list[int]:
        """Sends whole Ethernet frames, in order; the numbers (from 0) of those that were dropped."""
        refused = self._batch.send(self._socket, frames)
        self.tx += len(frames) - len(refused)
        self.tx_dropped += len(refused)
        return refused

    def send_train(self, ethernet: bytes, header: bytes, payload: Buffer, mss: int) -> list[int]:
        """Sends `payload` as stream segments of `mss` bytes; the numbers of those that were dropped.

        ethernet: what stands before each, 14 bytes; header: XIP and XSTREAM header of the first segment.
        """
        refused = self._batch.send_train(self._socket, ethernet, header, payload, mss)
        self.tx += trains.count(payload, mss) - len(refused)
        self.tx_dropped += len(refused)
        return refused

    def kernel_drops(self) -> int:
        """Frames the kernel dropped because the receive buffer was full, since the last call."""
        data = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", data)[1])

    def close(self) -> None:
        """Closes the socket; may be called twice."""
        self._socket.close()
