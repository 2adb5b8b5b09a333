"""The rendezvous service of a node: who is where, by signed word of the hosts themselves.

Sans-IO: `receive` takes the payload of a datagram and gives that of the answer; `locate` tells the Click
element XIARendezvous where to send packets on to. Sequence numbers of a HID only rise, also after its entry
ran out.
"""

from __future__ import annotations

from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.wire.dag import DAG
from xiatb.wire.rendezvous import Control, Verb, parse
from xiatb.wire.xid import XID, XidType

MAX_HOSTS = 65536
TTL = 3600.0
"""Seconds that a registration holds; hosts repeat it every third of that."""
MAX_LOCATOR = 8
"""Nodes of a locator, which packets have to carry."""


class Place(NamedTuple):
    """Where a host said it is; `message` is the REGISTER, `expires` in seconds of the caller's clock."""

    dag: DAG
    seq: int
    expires: float
    message: bytes


class Rendezvous:
    """All hosts of one service."""

    def __init__(self, key: KeyPair, *, limit: int = MAX_HOSTS) -> None:
        """key: the node's HID key, which signs answers; limit: most hosts that are held."""
        self._key = key
        self._limit = limit
        self._places: dict[bytes, Place] = {}
        self.stats = dict.fromkeys(("registered", "repeated", "stale", "forged", "full", "malformed"), 0)

    def receive(self, payload: bytes | memoryview, now: float) -> bytes | None:
        """Return the answer to a REGISTER; None for anything else, which is counted."""
        raw = bytes(payload)
        try:
            message = parse(raw)
            if message.verb is not Verb.REGISTER:
                raise WireError("an answer came to the rendezvous service")
            dag = DAG.parse(message.dag)
            if dag.intent != message.hid or len(dag) > MAX_LOCATOR:
                raise WireError("a registration is of a locator of its own HID")
        except WireError:
            self.stats["malformed"] += 1
            return None
        old = self._places.get(message.hid.key)
        if old is not None and old.message == raw:
            self.stats["repeated"] += 1
            return self._answer(Verb.ACK, message, message.seq)
        if old is not None and message.seq <= old.seq:
            self.stats["stale"] += 1
            return self._answer(Verb.STALE, message, old.seq)
        if keys.xid_of(message.public, XidType.HID) != message.hid or not keys.verify(
            message.public, message.signature, message.signed_bytes()
        ):
            self.stats["forged"] += 1
            return self._answer(Verb.REFUSED, message, message.seq)
        if old is None and not self._room(now):
            self.stats["full"] += 1
            return self._answer(Verb.REFUSED, message, message.seq)
        self._places[message.hid.key] = Place(dag, message.seq, now + TTL, raw)
        self.stats["registered"] += 1
        return self._answer(Verb.ACK, message, message.seq)

    def _answer(self, verb: Verb, to: Control, seq: int) -> bytes:
        answer = Control(verb, to.hid, "", seq, self._key.public)
        return answer.signed(self._key.sign(answer.signed_bytes())).pack()

    def _room(self, now: float) -> bool:
        if len(self._places) >= self._limit:
            self._places = {key: place for key, place in self._places.items() if now < place.expires}
        return len(self._places) < self._limit

    def locate(self, hid_key: bytes, now: float) -> DAG | None:
        """The present locator of a host by its 24-byte key; None when none is known."""
        place = self._places.get(hid_key)
        return place.dag if place is not None and now < place.expires else None

    def listing(self, now: float) -> list[dict[str, object]]:
        """All hosts that are known, sorted: {"hid", "dag", "seq", "ttl" (seconds left)}."""
        return [
            {
                "hid": str(XID.from_key(key)),
                "dag": str(place.dag),
                "seq": place.seq,
                "ttl": round(place.expires - now),
            }
            for key, place in sorted(self._places.items())
            if now < place.expires
        ]
