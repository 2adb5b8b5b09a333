"""Answers datagrams of known flows without the transport: what makes 1000 answers a second cheap.

The first datagram of a flow takes the ordinary way. The answer's header is then kept under the length
and source of the request: a later datagram of that length and source gets that header and its own
payload back, by whatever address it came (after a migration they come by the old one for a while).
Entries live for LIFETIME, so that the transport sees a packet of every live flow once in a while (it
must know whom to tell of a move), and all of them go when this end moves or when anything but a plain
datagram arrives (a MIGRATE, above all).
"""

from __future__ import annotations

from xiatb.errors import WireError
from xiatb.transport.datagram import Datagram
from xiatb.transport.endpoint import Endpoint
from xiatb.wire import xdgram, xip
from xiatb.wire.dag import DAG

LIFETIME = 0.5
MAX_FLOWS = 64
ETHERNET = 14
"""Bytes of the Ethernet header before the XIP header of a received frame."""
_FIXED = ETHERNET + xip.FIXED_LEN
_DNODE, _SNODE = ETHERNET + 5, ETHERNET + 6
_NODE = 28

_SIZED = ETHERNET + 4
"""End of version, next header and payload length."""

Answer = tuple[bytes, int, int]
"""Header of the answer, payload start and end in the frame."""


class FlowCache:
    """The known flows of one endpoint. `find` gives the answer to a frame, `learn` notes its flow."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._local: DAG = endpoint.local
        self._answers: dict[bytes, tuple[bytes, int, float]] = {}  # header, payload length, expiry

    def find(self, frame: memoryview, now: float) -> Answer | None:
        """The answer to a frame of a known flow; None when it must take the ordinary way."""
        try:
            source_at = _FIXED + _NODE * frame[_DNODE]
            payload_at = source_at + _NODE * frame[_SNODE] + xdgram.LEN
        except IndexError:
            return None
        answer = self._answers.get(bytes(frame[ETHERNET:_SIZED]) + bytes(frame[source_at:payload_at]))
        if answer is None or answer[2] < now or payload_at + answer[1] > len(frame):
            return None
        if self._local is not self._endpoint.local:
            return None
        return answer[0], payload_at, payload_at + answer[1]

    def learn(self, frame: memoryview, now: float) -> None:
        """Notes the flow of a frame that takes the ordinary way, if it is a plain datagram of a peer at the
        address it was last known at; anything else empties the cache."""
        endpoint = self._endpoint
        if self._local is not endpoint.local or len(self._answers) >= MAX_FLOWS:
            self._answers.clear()
            self._local = endpoint.local
        try:
            nxt, plen, _, _, snode, _, off = xip.parse_fast(frame, ETHERNET)
        except WireError:
            return
        payload_at = off + xdgram.LEN
        if nxt != xip.NXT_XDGRAM or plen < xdgram.LEN or bytes(frame[off:payload_at]) != xdgram.HEADER:
            self._answers.clear()
            return
        source = bytes(frame[off - _NODE * snode : off])
        if not self._current(endpoint.datagram, source):
            return
        header = xip.build_header(xip.NXT_XDGRAM, xip.dag_of(source), self._local, plen) + xdgram.HEADER
        flow = bytes(frame[ETHERNET:_SIZED]) + source + bytes(frame[off:payload_at])
        self._answers[flow] = (header, plen - xdgram.LEN, now + LIFETIME)

    def _current(self, datagram: Datagram, source: bytes) -> bool:
        try:
            dag = xip.dag_of(source)
        except WireError:
            return False
        moved = datagram.peer_dag(dag.intent)
        return moved is None or moved == dag
