"""Connections that a listener has been asked for and that are not complete yet.

A SYN costs one small record, bounded in number and in time; a `Stream` with its buffers is made only
when the peer has proved, by acknowledging our initial sequence number, that it is where it says.
"""

from __future__ import annotations

import random
from collections import OrderedDict

from xiatb.transport.autotuning import RECV_MAX, RECV_START
from xiatb.transport.config import StreamConfig
from xiatb.transport.connection import MASK, scale_for
from xiatb.transport.packets import HeaderTemplate, Out
from xiatb.wire import xstream
from xiatb.wire.dag import DAG
from xiatb.wire.xstream import ACK, SYN

_TRIES = 5


class HalfOpen:
    """One SYN that was answered and not confirmed."""

    __slots__ = ("interval", "irs", "iss", "options", "remote", "resend_at", "stamp_offset", "tries")

    def __init__(
        self, remote: DAG, rng: random.Random, header: xstream.Header, resend_at: float, interval: float
    ) -> None:
        self.remote = remote
        self.iss = rng.getrandbits(32)
        self.stamp_offset = rng.getrandbits(32)
        self.irs = header.seq
        self.options = header.options
        self.resend_at = resend_at
        self.interval = interval
        self.tries = 1


class Handshakes:
    """The half-open connections of one listener, keyed by the peer's SID (24 bytes)."""

    def __init__(self, config: StreamConfig, rng: random.Random) -> None:
        """`config.syn_backlog` bounds the number; the oldest goes first."""
        self._config = config
        self._rng = rng
        self._pending: OrderedDict[bytes, HalfOpen] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._pending)

    def get(self, peer: bytes) -> HalfOpen | None:
        """The half-open connection with `peer`."""
        return self._pending.get(peer)

    def drop(self, peer: bytes) -> None:
        """Forget it."""
        self._pending.pop(peer, None)

    def syn(self, peer: bytes, local: DAG, remote: DAG, header: xstream.Header, now: float) -> Out:
        """Take a SYN from `remote` and return the SYN-ACK.

        A repeated SYN keeps its record; since its sender knows the initial sequence number it may
        come from another address, to which the answer then goes.
        """
        half = self._pending.get(peer)
        if half is not None and half.irs == header.seq:
            half.remote = remote
            half.options = header.options
        else:
            interval = self._config.initial_rto
            half = HalfOpen(remote, self._rng, header, now + interval, interval)
            self._pending.pop(peer, None)
            self._pending[peer] = half
            if len(self._pending) > self._config.syn_backlog:
                self._pending.popitem(last=False)
                self.evicted += 1
        return self._syn_ack(half, local, now)

    def confirm(self, peer: bytes, header: xstream.Header) -> HalfOpen | None:
        """Return the half-open connection that an ACK completes; it stays until dropped."""
        half = self._pending.get(peer)
        if half is None or not header.flags & ACK or (header.ack - half.iss) & MASK != 1:
            return None
        if (header.seq - half.irs - 1) & MASK > max(self._config.recv_buffer or RECV_START, 0xFFFF):
            return None
        return half

    def _syn_ack(self, half: HalfOpen, local: DAG, now: float) -> Out:
        config = self._config
        asked = half.options
        options = xstream.Options(mss=config.mtu)
        if asked.wscale is not None:
            options.wscale = scale_for(config.recv_buffer or RECV_MAX)
        options.sack_permitted = asked.sack_permitted
        if asked.timestamp is not None:
            options.timestamp = ((int(now * 1e6) + half.stamp_offset) & MASK, asked.timestamp[0])
        window = min(config.recv_buffer or RECV_START, 0xFFFF)
        body = xstream.pack(SYN | ACK, half.iss, (half.irs + 1) & MASK, window, options)
        template = HeaderTemplate(local, half.remote)
        return template.head + len(body).to_bytes(2, "big") + template.rest + body, b""

    def next_deadline(self) -> float | None:
        """When a SYN-ACK is to be repeated or a record to be dropped."""
        if not self._pending:
            return None
        return min(half.resend_at for half in self._pending.values())

    def tick(self, local: DAG, now: float) -> list[Out]:
        """Repeat the SYN-ACKs that are due, drop what was never confirmed."""
        out: list[Out] = []
        for peer, half in list(self._pending.items()):
            if now < half.resend_at:
                continue
            if half.tries >= _TRIES:
                del self._pending[peer]
                continue
            half.tries += 1
            half.interval *= 2
            half.resend_at = now + half.interval
            out.append(self._syn_ack(half, local, now))
        return out
