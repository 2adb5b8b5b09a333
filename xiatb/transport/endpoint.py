"""Everything that is bound to one local SID: a listener, its streams, and datagrams.

An endpoint takes all packets whose final destination intent is its SID and hands them out by the
source's SID, as a connection is the pair of both.  Order of use: `receive` for each packet, `tick`
when a deadline has passed, then `transmit` until it returns nothing, then `next_deadline`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from xiatb.errors import TransportError, WireError
from xiatb.identity.keys import KeyPair
from xiatb.transport.config import DatagramConfig, StreamConfig
from xiatb.transport.connection import INFINITY, MASK, State, fits
from xiatb.transport.datagram import Datagram
from xiatb.transport.errors import InUseError
from xiatb.transport.events import Event
from xiatb.transport.handshake import HalfOpen, Handshakes
from xiatb.transport.packets import (
    STREAM_HEADER,
    HeaderTemplate,
    Out,
    lone_packets,
    payload_offset,
    segments,
    stretches,
)
from xiatb.transport.resets import Resets
from xiatb.transport.stream import Stream
from xiatb.transport.timetable import Timetable
from xiatb.wire import xcmp, xip, xstream
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID
from xiatb.wire.xstream import ACK, RST, SYN

Buffer = bytes | bytearray | memoryview


class Endpoint:
    """The transport of one SID.  Sizes in bytes, times in seconds of one monotonic clock."""

    def __init__(
        self,
        key: KeyPair | None,
        sid: XID,
        local: DAG,
        config: StreamConfig | None = None,
        rng: random.Random | None = None,
        datagram_config: DatagramConfig | None = None,
    ) -> None:
        """`local` is the service DAG that ends in `sid`; `key` (the SID's) is what makes moves possible.

        TransportError when `local` ends in something else.
        """
        if local.intent != sid:
            raise TransportError(f"the address {local} does not end in {sid}")
        self.sid = sid
        self.local = local
        self.config = config or StreamConfig()
        self.rng = rng or random.Random()
        if datagram_config is None:
            given = self.config
            datagram_config = DatagramConfig(
                mtu=given.mtu, move_base=given.move_base, rendezvous=given.rendezvous
            )
        self.datagram = Datagram(sid, key, local, datagram_config)
        self.wake: Callable[[], None] | None = None
        """Called when a stream has something to transmit although no packet or timer came."""
        self.stats: dict[str, int] = {
            "packets_in": 0, "packets_out": 0, "malformed": 0, "misrouted": 0, "resets_sent": 0,
            "syn_dropped": 0, "accepted": 0, "connected": 0, "xcmp": 0, "refused": 0,
        }  # fmt: skip
        self._key = key
        self._streams: dict[bytes, Stream] = {}
        self._handshakes = Handshakes(self.config, self.rng)
        self._backlog = -1
        self._accepted: deque[Stream] = deque()
        self._ready: dict[Stream, None] = {}
        self._touched: dict[Stream, None] = {}
        self._out: deque[Out] = deque()
        self._inbox: deque[tuple[bytes, DAG]] = deque(maxlen=4096)
        self._timetable = Timetable()
        self._resets = Resets()

    # Opening

    def listen(self, backlog: int = 16) -> None:
        """Take connections; at most `backlog` complete ones wait for `accept`."""
        self._backlog = max(1, backlog)

    def accept(self) -> Stream | None:
        """The next complete connection, None when there is none."""
        return self._accepted.popleft() if self._accepted else None

    @property
    def acceptable(self) -> int:
        """Complete connections waiting for `accept`."""
        return len(self._accepted)

    def connect(self, remote: DAG, now: float, config: StreamConfig | None = None) -> Stream:
        """Begin a connection to the service DAG `remote`; CONNECTED or CLOSED tells how it went.

        InUseError when there is a connection with that SID.
        """
        peer = remote.intent.key
        if peer in self._streams:
            raise InUseError(f"there is a connection between {self.sid} and {remote.intent} already")
        stream = Stream.opening(config or self.config, self._key, self.local, remote, self.rng, now)
        self._adopt(peer, stream)
        self.stats["connected"] += 1
        return stream

    def _adopt(self, peer: bytes, stream: Stream) -> None:
        self._streams[peer] = stream
        stream._wake_owner = self._woken
        self._ready[stream] = None
        self._touched[stream] = None

    def _woken(self, stream: Stream) -> None:
        """A stream was written to, closed, moved or read from."""
        self._ready[stream] = None
        self._touched[stream] = None
        if self.wake is not None:
            self.wake()

    @property
    def streams(self) -> list[Stream]:
        """The streams that are not over."""
        return list(self._streams.values())

    # Packets in

    def receive(self, packet: Buffer, now: float) -> None:
        """Take one whole XIP packet; what is malformed or not for this SID is counted and dropped."""
        self.stats["packets_in"] += 1
        try:
            nxt, plen, _, dnode, snode, _, off = xip.parse_fast(packet)
        except WireError:
            self.stats["malformed"] += 1
            return
        end = off + plen
        if nxt == xip.NXT_XSTREAM:
            stream = self._streams.get(bytes(packet[off - 28 : off - 4]))
            if stream is not None and (stream.state is not State.TIME_WAIT):
                stream.segment(packet, off, end, off - 28 * snode, now)
                self._ready[stream] = None
                self._touched[stream] = None
                return
        at = 28 * dnode - 20
        if bytes(packet[at : at + 24]) != self.sid.key:
            self.stats["misrouted"] += 1
            return
        try:
            self._receive_other(packet, nxt, off, end, snode, now)
        except WireError:
            self.stats["malformed"] += 1

    def receive_train(self, header: Buffer, payload: bytes, packets: int, now: float) -> None:
        """Take several stream segments in a row as one: `header` is the first's (XIP and XSTREAM; it may
        have a later one's acknowledgement and window), `payload` that of all.

        All but the last have the first one's payload size, and no flags but ACK and PSH.
        """
        off = payload_offset(header)
        full = int.from_bytes(header[2:4], "big") - (len(header) - off)
        stream = self._streams.get(bytes(header[off - 28 : off - 4]))
        if stream is not None and stream.state is not State.TIME_WAIT and len(header) - off >= STREAM_HEADER:
            self.stats["packets_in"] += packets
            stream.segment(header, off, len(header), off - 28 * header[6], now, payload, packets, full)
            self._ready[stream] = None
            self._touched[stream] = None
            return
        for lone, share in segments(bytes(header), payload, max(full, 1)):
            self.receive(lone + share, now)

    def _receive_other(self, packet: Buffer, nxt: int, off: int, end: int, snode: int, now: float) -> None:
        """All but a segment of an open stream.  Raises WireError."""
        source = xip.dag_of(bytes(packet[off - 28 * snode : off]))
        if nxt == xip.NXT_XSTREAM:
            self._unexpected(packet, off, end, source, now)
        elif nxt == xip.NXT_XCMP:
            self._control_message(packet[off:end], now)
        else:
            self._inbox.extend(self.datagram.take(packet, nxt, off, end, source, now))

    def _unexpected(self, packet: Buffer, off: int, end: int, source: DAG, now: float) -> None:
        """A segment without an open stream: handshake, TIME_WAIT, or nothing that we know."""
        header = xstream.parse(packet, off, end)
        peer = source.intent.key
        flags = header.flags
        fresh = flags & SYN and not flags & (ACK | RST)
        stream = self._streams.get(peer)
        if stream is not None:
            if not fresh:
                stream.segment(packet, off, end, off - len(source.to_wire()), now)
                self._ready[stream] = self._touched[stream] = None
                return
            stream.abort("replaced by a new connection")
            self._forget(stream)
        if fresh and self._backlog > 0:
            full = len(self._accepted) >= self._backlog
            if (
                full
                or not fits(self.local, source, self.config.mtu)
                or len(self._streams) >= self.config.max_streams
            ):
                self.stats["syn_dropped"] += 1
                return
            self._out.append(self._handshakes.syn(peer, self.local, source, header, now))
            return
        half = self._handshakes.get(peer)
        if half is None:
            self._refuse(header, end - off, source, now)
        elif flags & RST:
            if (header.seq - half.irs) & MASK == 1:
                self._handshakes.drop(peer)
        elif self._handshakes.confirm(peer, header) is not None:
            self._complete(peer, half, header, packet, off, end, now)
        elif not flags & SYN:
            self._refuse(header, end - off, source, now)

    def _complete(
        self, peer: bytes, half: HalfOpen, header: xstream.Header, packet: Buffer, off: int, end: int,
        now: float,
    ) -> None:  # fmt: skip
        """The third segment of a handshake: make the stream, unless too many wait for `accept`."""
        if len(self._accepted) >= self._backlog:
            self.stats["syn_dropped"] += 1
            return
        self._handshakes.drop(peer)
        stream = Stream(self.config, self._key, self.local, half.remote, self.rng, now)
        stamp = header.options.timestamp
        stream.take_over(half, stamp[0] if stamp else 0, header.win, now)
        self._adopt(peer, stream)
        self._accepted.append(stream)
        self.stats["accepted"] += 1
        stream.segment(packet, off, end, off, now)

    def _refuse(self, header: xstream.Header, size: int, source: DAG, now: float) -> None:
        """Answer a segment that belongs to nothing with RST."""
        reset = self._resets.answer(header, size, HeaderTemplate(self.local, source), now)
        if reset is not None:
            self._out.append(reset)
            self.stats["resets_sent"] += 1

    def _control_message(self, payload: Buffer, now: float) -> None:
        """XCMP about a packet of ours: unreachable, or too big.  Raises WireError."""
        message = xcmp.parse(payload)
        if not message.is_error:
            return
        original = message.original()
        if original.src_intent_key != self.sid.key:
            self.stats["misrouted"] += 1
            return
        self.stats["xcmp"] += 1
        stream = self._streams.get(original.intent_key)
        quoted = bytes(original.payload)
        if stream is None or original.nxt != xip.NXT_XSTREAM or len(quoted) < 8:
            return
        seq = int.from_bytes(quoted[4:8], "big")
        if message.mtu is not None:
            stream.too_big(message.mtu, seq, now)
        elif message.type == xcmp.UNREACHABLE:
            stream.unreachable(seq, message.intent_is_gone())
        self._ready[stream] = self._touched[stream] = None

    # Datagrams

    def send_datagram(self, payload: Buffer, to: DAG, now: float) -> bool:
        """As `Datagram.send`."""
        return self.datagram.send(payload, to, now)

    def receive_datagrams(self) -> list[tuple[bytes, DAG]]:
        """The datagrams that came since the last call, (payload, source DAG); at most 4096 are kept."""
        got = list(self._inbox)
        self._inbox.clear()
        return got

    # Time and packets out

    def tick(self, now: float) -> None:
        """Run the timers that are due."""
        for stream in self._timetable.due(now):
            due = stream.next_deadline()
            if due is None:
                continue
            if due <= now:
                stream.tick(now)
                self._ready[stream] = self._touched[stream] = None
            else:
                self._timetable.add(stream, due)
        self._out.extend(self._handshakes.tick(self.local, now))
        self.datagram.tick(now)

    def next_deadline(self) -> float | None:
        """When `tick` and `transmit` must be called at the latest; 0 when there is something to send now."""
        if self._ready or self._out:
            return 0.0
        first = self._timetable.first
        for other in (self._handshakes.next_deadline(), self.datagram.next_deadline()):
            if other is not None and other < first:
                first = other
        return None if first == INFINITY else first

    def transmit(self, now: float, budget: int = 64) -> list[Out]:
        """About `budget` packets that may go out now, also in trains; call again until there are none."""
        out: list[Out] = []
        while self._out and len(out) < budget:
            out.append(self._out.popleft())
        datagrams = self.datagram.next_deadline()
        if datagrams is not None and datagrams <= now:
            out += self.datagram.transmit(now, budget)
        count = len(out)
        ready = self._ready
        while ready and count < budget:
            stream = next(iter(ready))
            del ready[stream]
            share = budget - count
            out += stream.transmit(now, share)
            count += stream.burst
            if stream.burst >= share:
                ready[stream] = None
            if stream.state is State.CLOSED:
                self._forget(stream)
                continue
            due = stream.next_deadline()
            if due is not None:
                self._timetable.add(stream, due)
        self.stats["packets_out"] += count
        return out

    def not_sent(self, refused: Sequence[Out], now: float) -> None:
        """The socket refused these packets of `transmit`, or segments of its trains (ENOBUFS or EAGAIN).

        The local queue is full, which is congestion: their streams reduce as for a loss, know at once
        what to send again, and pause, longer each time.  Datagrams are just lost.
        """
        lone = list(lone_packets(refused))
        for peer, seq, size, packets in stretches(lone):
            stream = self._streams.get(peer)
            if stream is not None:
                stream.not_sent(seq, size, packets, now)
                self._ready[stream] = None
        self.stats["refused"] += len(lone)

    def _forget(self, stream: Stream) -> None:
        """A stream is over: its peer may connect anew."""
        self._out.extend(stream.transmit(0.0))
        peer = stream.remote_sid.key
        if self._streams.get(peer) is stream:
            del self._streams[peer]
        self._ready.pop(stream, None)
        self._timetable.remove(stream)

    def events(self) -> list[tuple[Stream, Event]]:
        """What happened to the streams since the last call."""
        touched = self._touched
        if not touched:
            return []
        self._touched = {}
        return [(stream, event) for stream in touched for event in stream.events()]

    # Moving

    def move(self, new_local: DAG, now: float) -> None:
        """This host is elsewhere: every stream and every recent datagram peer is told at once.

        TransportError when `new_local` does not end in this SID.
        """
        if new_local.intent != self.sid:
            raise TransportError(f"the address {new_local} does not end in {self.sid}")
        self.local = new_local
        for stream in self.streams:
            try:
                stream.move(new_local, now)
            except TransportError as error:
                stream.abort(error.message)
        self.datagram.move(new_local, now)
        if self.wake is not None:
            self.wake()

    def set_mtu(self, mtu: int) -> None:
        """The local link carries XIP packets of `mtu` bytes from now on."""
        self.config.mtu = self.datagram.mtu = mtu
        for stream in self.streams:
            stream.set_mtu(mtu)

    def describe(self) -> dict[str, Any]:
        """Counters of the endpoint and of each stream, for display."""
        return {
            **self.stats,
            "streams": {str(s.remote_sid): s.stats() for s in self._streams.values()},
            "datagrams": dict(self.datagram.stats),
            "half_open": len(self._handshakes),
        }
