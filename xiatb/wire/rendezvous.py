"""The rendezvous service's messages, and the address that it gives to packets which it sends on.

Control messages are XDGRAMs to `AD HID SID_RENDEZVOUS_CONTROL` and back. As in xia-core (rvd.cc:317-403,
xia.md 6.1 and 6.2) they are buffers `u16 count, count x (u16 length, bytes)`, little endian, one in another:

    message = [payload, signature 64, key 32 (raw Ed25519)]
    payload = [verb, HID text, DAG text, sequence in decimal]

verb is REGISTER, signed by the key behind the HID; or ACK, STALE or REFUSED, signed by the HID key of the
node that runs the service (DAG text is then empty, the sequence that of the REGISTER, and with STALE the
last one known). Signatures are over `b"xiatb-rendezvous\\0"` and the payload. xia-core's payload has no verb
and is not acknowledged.

Packets get there by a destination such as `RE AD ( AD_rv HID_rv SID_rv ) HID SID` (see `with_rendezvous`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.wire.dag import DAG, ENTRY, NODE_LEN
from xiatb.wire.xid import XID, XidType
from xiatb.wire.xip import Buffer

MAX_MESSAGE = 2048
_PURPOSE = b"xiatb-rendezvous\0"
_U16 = struct.Struct("<H")
_MAX_SEQ = 2**64 - 1


class Verb(Enum):
    """What a control message says."""

    REGISTER = "REGISTER"
    ACK = "ACK"
    STALE = "STALE"
    """The sequence was not higher than one that is known."""
    REFUSED = "REFUSED"
    """The signature does not hold, or there is no room."""


class Control(NamedTuple):
    """One control message; `dag` is the address text of a REGISTER, empty in answers."""

    verb: Verb
    hid: XID
    dag: str
    seq: int
    public: bytes = bytes(32)
    signature: bytes = bytes(64)

    def payload(self) -> bytes:
        """Return the inner buffer. Raises WireError when something does not fit."""
        if not 0 <= self.seq <= _MAX_SEQ:
            raise WireError(f"rendezvous sequence {self.seq} does not fit 64 bits")
        texts = (self.verb.value, str(self.hid), self.dag, str(self.seq))
        return _join(text.encode("ascii") for text in texts)

    def signed_bytes(self) -> bytes:
        """Return what the signature covers."""
        return _PURPOSE + self.payload()

    def signed(self, signature: bytes) -> Control:
        """Return the same with its 64-byte signature."""
        return self._replace(signature=signature)

    def pack(self) -> bytes:
        """Return the whole message. Raises WireError when it does not fit."""
        whole = _join((self.payload(), self.signature, self.public))
        if len(whole) > MAX_MESSAGE:
            raise WireError(f"a rendezvous message of {len(whole)} bytes, at most {MAX_MESSAGE} fit")
        return whole


def _join(parts: Iterable[bytes]) -> bytes:
    items = list(parts)
    return _U16.pack(len(items)) + b"".join(_U16.pack(len(item)) + item for item in items)


def _split(raw: bytes, count: int, what: str) -> list[bytes]:
    """The `count` parts of a buffer that they fill exactly."""
    if len(raw) < 2 or _U16.unpack_from(raw)[0] != count:
        raise WireError(f"{what} is no buffer of {count} parts")
    parts, at = [], 2
    for _ in range(count):
        if at + 2 > len(raw):
            raise WireError(f"{what} is cut")
        (length,) = _U16.unpack_from(raw, at)
        at += 2
        if at + length > len(raw):
            raise WireError(f"{what} is cut")
        parts.append(raw[at : at + length])
        at += length
    if at != len(raw):
        raise WireError(f"{what} has {len(raw) - at} bytes behind its end")
    return parts


def parse(payload: Buffer) -> Control:
    """Return the control message in an XDGRAM's payload; nothing is verified. Raises WireError."""
    raw = bytes(payload)
    if len(raw) > MAX_MESSAGE:
        raise WireError(f"a rendezvous message of {len(raw)} bytes")
    inner, signature, public = _split(raw, 3, "a rendezvous message")
    if len(signature) != 64 or len(public) != 32:
        raise WireError("a signature has 64 bytes and a key 32")
    parts = _split(inner, 4, "a rendezvous payload")
    try:
        word, hid_text, dag, number = (part.decode("ascii") for part in parts)
        verb = Verb(word)
    except ValueError:
        raise WireError("a rendezvous payload of unknown words") from None
    hid = XID.parse(hid_text)
    if hid.type != XidType.HID or not number.isdigit() or len(number) > 20 or int(number) > _MAX_SEQ:
        raise WireError("a rendezvous payload names no HID or no sequence")
    message = Control(verb, hid, dag, int(number), public, signature)
    if message.payload() != inner:
        raise WireError("a rendezvous payload is not in the form that was signed")
    return message


# Addresses


def with_rendezvous(host: DAG, service: DAG) -> DAG:
    """Return `AD ( AD_rv HID_rv SID_rv ) HID`: the locator `host` (RE AD HID) with the data address `service`
    of a rendezvous service as its fallback. Raises WireError when `host` is no locator."""
    if len(host) != 2 or host.intent.type != XidType.HID:
        raise WireError(f"{host} is not the locator of a host")
    middle = len(service)
    nodes = (host.nodes[0], *service.nodes, host.nodes[1])
    rows = [tuple(target + 1 for target in row) for row in service.edges[:-1]]
    first = (middle + 1, *(target + 1 for target in service.entry))
    return DAG(nodes, (first, *rows, (middle + 1,), ()), (0,))


def via(service: DAG, peer: DAG) -> DAG | None:
    """Return the address that reaches the host of `peer` by the rendezvous service whose data address is
    `service`, wherever that host is: `AD_rv HID_rv SID_rv HID [SID]`. None when `peer` names no HID."""
    hid = peer.intent_hid
    if hid is None:
        return None
    return service * hid if peer.intent == hid else service * hid * peer.intent


def sought(nodes: Buffer, at: int) -> bytes | None:
    """Return the key (24 bytes) of the HID that node `at` of a packet's node list leads to first, else
    None."""
    found = _hid_after(bytes(nodes), at)
    return None if found is None else bytes(nodes[found * NODE_LEN : found * NODE_LEN + 24])


def redirected(nodes: Buffer, at: int, locator: DAG) -> bytes:
    """Return the node list of a packet that stands at node `at`, redirected to `locator`.

    `locator` is where the HID that node `at` leads to is now. What lies behind that HID in the old list
    stays, all else goes, so no second redirection can bring the packet back. Raises WireError when the list
    has a circle or node `at` leads to no HID.
    """
    raw = bytes(nodes)
    hid = _hid_after(raw, at)
    if hid is None:
        raise WireError("the packet's address names no host behind the rendezvous service")
    rows = {}
    todo = [hid]
    sink = len(raw) // NODE_LEN - 1
    while todo:
        node = todo.pop()
        if node not in rows:
            rows[node] = [] if node == sink else _targets(raw, node)
            todo += rows[node]
    tail = sorted(set(rows) - {hid})
    place = {old: len(locator) + index for index, old in enumerate(tail)}
    if hid in {target for row in rows.values() for target in row}:
        raise WireError("the packet's address goes in a circle")
    xids = [XID.from_key(raw[old * NODE_LEN : old * NODE_LEN + 24]) for old in tail]
    edges = [*locator.edges[:-1], *([place[t] for t in rows[old]] for old in (hid, *tail))]
    return DAG((*locator.nodes, *xids), edges, locator.entry).to_wire()


def _targets(raw: bytes, node: int) -> list[int]:
    """The nodes that a node's edges lead to. Raises WireError for one that is not there."""
    count = len(raw) // NODE_LEN
    found = []
    for edge in raw[node * NODE_LEN + 24 : node * NODE_LEN + 28]:
        target = edge & 0x7F
        if target == 0x7F:
            break
        if target >= count:
            raise WireError(f"node {node} has an edge to node {target}, there are {count}")
        found.append(target)
    return found


def _hid_after(raw: bytes, at: int) -> int | None:
    """The first HID that an edge of node `at` leads to; None also at the sink, whose edges are the
    entry's."""
    count = len(raw) // NODE_LEN
    if at == ENTRY or not 0 <= at < count - 1:
        return None
    for target in _targets(raw, at):
        if int.from_bytes(raw[target * NODE_LEN : target * NODE_LEN + 4], "big") == XidType.HID:
            return target
    return None
