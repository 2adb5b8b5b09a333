"""What can be set about a transport endpoint, with the defaults and why they are what they are.

All times are seconds, all sizes bytes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from xiatb.wire.dag import DAG

MIN_MTU = 576
"""No path is taken to carry less than this; a "too big" report below it is not believed."""

MAX_MTU = 65535
"""`plen` and the MSS option are 16-bit."""

CONTROLS = ("cubic", "reno", "bbr")
"""What `StreamConfig.congestion` may be."""


@dataclass
class StreamConfig:
    """Settings of one stream connection, and of the endpoint that makes it.

    `mtu` is the size of a whole XIP packet (what a link carries after its Ethernet header).
    `send_buffer` bounds the bytes written but not yet acknowledged; `unsent_limit` bounds the part
    of them that has not been sent even once (0: only `send_buffer` counts), which is what turns into
    downtime when a relay feeds the stream.  `recv_buffer` is also the largest window offered.
    A buffer of 0 grows by itself with the path (`autotuning.py`); any other size is kept.
    """

    mtu: int = 1500
    recv_buffer: int = 0
    send_buffer: int = 0
    unsent_limit: int = 0
    congestion: str = "cubic"
    initial_window: int = 12
    """Segments that may be sent before the first acknowledgement: RFC 6928's ten of 1460 bytes are 14,600
    bytes of payload, which take twelve segments with XIP's headers at MTU 1500."""

    initial_rto: float = 0.3
    """RFC 6298 says 1 s; a lab's round trips are far below 0.3 s and a lost SYN should not cost a second."""
    min_rto: float = 0.1
    """Half of what Linux takes: delayed ACKs here wait 25 ms, and a needless time-out is taken back."""
    max_rto: float = 10.0
    give_up: float = 60.0
    """A connection whose oldest byte stays unacknowledged for this long has failed (ETIMEDOUT)."""
    connect_timeout: float = 20.0

    delayed_ack: float = 0.025
    ack_every: int = 2
    """Full-sized segments that may wait for one acknowledgement (RFC 1122, RFC 5681)."""

    keepalive_idle: float = 60.0
    """0 switches keep-alive off."""
    keepalive_interval: float = 5.0
    keepalive_probes: int = 8
    persist_max: float = 5.0
    """Longest gap between two probes of a closed window."""

    time_wait: float = 2.0
    """Short against TCP's two MSL: a client takes a fresh SID for each connection, so old duplicates
    of one connection cannot be taken for another's."""
    linger: float = 30.0
    """How long a closed stream waits for the peer's FIN before it is dropped."""

    migrate_rto: float = 0.02
    migrate_max_rto: float = 0.25
    migrate_give_up: float = 30.0
    rendezvous: DAG | None = None
    """Data address of a rendezvous service, by which a MIGRATE goes as well when the peer does not answer."""
    move_base: int = field(default_factory=time.time_ns)
    """First sequence of a MIGRATE is above this.  Wall clock nanoseconds, so that a process started
    anew with the same SID goes on above what its predecessor used."""

    syn_backlog: int = 256
    """Half-open connections a listener remembers; the oldest goes first."""
    max_streams: int = 4096

    def __post_init__(self) -> None:
        """Refuse settings that cannot work (ValueError)."""
        if not MIN_MTU <= self.mtu <= MAX_MTU:
            raise ValueError(f"mtu {self.mtu} is not within {MIN_MTU}..{MAX_MTU}")
        if 0 != self.recv_buffer < 4096 or 0 != self.send_buffer < 1024:
            raise ValueError("recv_buffer must be 0 or at least 4096, send_buffer 0 or at least 1024 bytes")
        if self.congestion not in CONTROLS:
            raise ValueError(f"unknown congestion control {self.congestion!r}: {', '.join(CONTROLS)}")
        if not 0 < self.min_rto <= self.max_rto:
            raise ValueError("min_rto must be positive and not above max_rto")


@dataclass
class DatagramConfig:
    """Settings of a datagram socket."""

    mtu: int = 1500
    max_peers: int = 64
    """Peers remembered (least recently used goes first), told of a move and looked up on send."""
    peer_idle: float = 30.0
    """A peer silent in both directions for this long is not told of a move, unless connected."""
    migrate_rto: float = 0.02
    migrate_max_rto: float = 0.25
    migrate_give_up: float = 30.0
    rendezvous: DAG | None = None
    """As of a stream."""
    move_base: int = field(default_factory=time.time_ns)
