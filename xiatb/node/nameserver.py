"""The name server: names, their addresses, and who may change them.

Sans-IO: `receive` takes the payload of a datagram and gives that of the answer. A registration is signed by
the key whose hash is the final intent of the address. A name belongs to the key that its static address in
the lab's hosts file names, else to the key that registered it first, until HOLD seconds after it has run out.
Sequence numbers of one name only rise, so nothing that was recorded can be played again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xiatb.errors import WireError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.node.names import is_name
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.nameservice import Kind, NameMessage, parse
from xiatb.wire.xid import XID, XidType

MAX_NAMES = 65536
MIN_TTL, MAX_TTL = 10, 86400
HOLD = 3600.0
"""Seconds that a name which has run out stays its owner's."""


@dataclass(slots=True)
class Record:
    """One registered name. `message` is the REGISTER that made it, `expires` in seconds of the caller's
    clock."""

    name: str
    dag: DAG
    owner: XID
    seq: int
    ttl: int
    expires: float
    message: bytes


class NameServer:
    """All names of one lab. `statics` gives the lab's fixed addresses by name (lower case), at any time."""

    def __init__(
        self, key: KeyPair, statics: Callable[[], Mapping[str, DAG]], *, limit: int = MAX_NAMES
    ) -> None:
        """key: the node's HID key, which signs answers; limit: most names that are held."""
        self._key = key
        self._statics = statics
        self._limit = limit
        self._records: dict[str, Record] = {}
        self._hosts: dict[XID, Record] = {}
        self.stats = dict.fromkeys(
            ("registered", "repeated", "stale", "forged", "not_owner", "full", "answered", "unknown",
             "malformed"), 0,
        )  # fmt: skip

    def receive(self, payload: bytes | memoryview, now: float) -> bytes | None:
        """Return the answer to a message; None for what is none, which is counted."""
        try:
            message = parse(payload)
        except WireError:
            self.stats["malformed"] += 1
            return None
        if message.kind is Kind.REGISTER:
            return self._answer(message, *self._register(message, now))
        if message.kind is Kind.QUERY:
            dag = self.lookup(message.strings[0], now)
            found = (Kind.RESP_QUERY, "" if dag is None else dag.dag_string())
        elif message.kind is Kind.RQUERY:
            found = (Kind.RESP_RQUERY, self._name_of(message, now))
        else:
            self.stats["malformed"] += 1
            return None
        self.stats["answered" if found[1] else "unknown"] += 1
        return self._answer(message, *(found if found[1] else (Kind.ERROR, "ENOENT unknown name")))

    def _answer(self, question: NameMessage, kind: Kind, text: str) -> bytes | None:
        strings = () if kind is Kind.RESP_REGISTER else (text,)
        record = self._records.get(question.strings[0].lower()) if question.strings else None
        answer = NameMessage(kind, strings, question.nonce, public=self._key.public)
        if record is not None:
            answer = answer._replace(seq=record.seq, ttl=record.ttl)
        try:
            if answer.nonce:
                answer = answer.signed(self._key.sign(answer.signed_bytes()))
            return answer.pack()
        except WireError:
            self.stats["malformed"] += 1
            return None

    # Registration

    def _register(self, message: NameMessage, now: float) -> tuple[Kind, str]:
        """Verdict on a REGISTER; the cheap checks come first."""
        name = message.strings[0].lower()
        try:
            dag = message.dag()
        except WireError as error:
            self.stats["malformed"] += 1
            return Kind.ERROR, f"EINVAL {error.message[:80]}"
        if not is_name(name) or not message.nonce or not MIN_TTL <= message.ttl <= MAX_TTL:
            self.stats["malformed"] += 1
            return Kind.ERROR, "EINVAL a registration has a name, a signature and a TTL of 10 to 86400 s"
        old = self._records.get(name)
        if old is not None and old.message == message.raw:
            self.stats["repeated"] += 1
            return Kind.RESP_REGISTER, ""
        wrong = self._refusal(name, dag, message, old, now)
        if wrong is not None:
            counter, text = wrong
            self.stats[counter] += 1
            return Kind.ERROR, text
        record = Record(name, dag, dag.intent, message.seq, message.ttl, now + message.ttl, message.raw)
        self._forget(old)
        self._records[name] = record
        if dag.intent.type == XidType.HID:
            self._hosts[dag.intent] = record
        self.stats["registered"] += 1
        return Kind.RESP_REGISTER, ""

    def _refusal(
        self, name: str, dag: DAG, message: NameMessage, old: Record | None, now: float
    ) -> tuple[str, str] | None:
        """(counter, error text) of a registration that does not hold, None of a good one."""
        intent = dag.intent
        if intent.type not in (XidType.HID, XidType.SID):
            return "forged", "EINVAL an address ends in a HID or SID"
        owner = self._owner(name, old, now)
        if owner is not None and owner != intent:
            return "not_owner", f"EACCES {name} belongs to another key"
        if old is not None and old.owner == intent and message.seq <= old.seq:
            return "stale", f"ESTALE {name} has sequence {old.seq}"
        if keys.xid_of(message.public, intent.type) != intent:
            return "forged", "EACCES the key is not that of the address"
        if not keys.verify(message.public, message.signature, message.signed_bytes()):
            return "forged", "EACCES the signature does not hold"
        if old is None and not self._room(now):
            return "full", "ENOSPC there are too many names"
        return None

    def _owner(self, name: str, old: Record | None, now: float) -> XID | None:
        static = self._statics().get(name)
        if static is not None:
            return static.intent
        return None if old is None or now >= old.expires + HOLD else old.owner

    def _room(self, now: float) -> bool:
        if len(self._records) >= self._limit:
            for record in [one for one in self._records.values() if now >= one.expires]:
                self._forget(record)
        return len(self._records) < self._limit

    def _forget(self, record: Record | None) -> None:
        if record is not None:
            self._records.pop(record.name, None)
            if self._hosts.get(record.owner) is record:
                del self._hosts[record.owner]

    # Questions

    def lookup(self, name: str, now: float) -> DAG | None:
        """The address of a name: as registered; else the static one, at the place where its host is now."""
        record = self._records.get(name.lower())
        if record is not None and now < record.expires:
            return record.dag
        static = self._statics().get(name.lower())
        return None if static is None else self._where_now(static, now)

    def _where_now(self, address: DAG, now: float) -> DAG:
        hid = address.intent_hid
        host = self._hosts.get(hid) if hid is not None else None
        if host is None or now >= host.expires:
            return address
        try:
            return host.dag if address.intent == hid else served(host.dag, address.intent)
        except WireError:
            return address

    def _name_of(self, message: NameMessage, now: float) -> str:
        """The name whose address has the same final intent; "" when there is none."""
        try:
            intent = message.dag().intent
        except WireError:
            return ""
        for record in self._records.values():
            if record.owner == intent and now < record.expires:
                return record.name
        return next((name for name, address in self._statics().items() if address.intent == intent), "")

    def listing(self, now: float) -> list[dict[str, object]]:
        """All names, sorted: {"name", "dag", "owner", "seq", "ttl" (seconds left), "origin"}; `origin` is
        "registered" or "static"."""
        found: dict[str, dict[str, object]] = {}
        for name, address in self._statics().items():
            found[name] = {
                "name": name, "dag": str(self._where_now(address, now)), "owner": str(address.intent),
                "seq": None, "ttl": None, "origin": "static",
            }  # fmt: skip
        for record in self._records.values():
            if now < record.expires:
                found[record.name] = {
                    "name": record.name, "dag": str(record.dag), "owner": str(record.owner),
                    "seq": record.seq, "ttl": round(record.expires - now), "origin": "registered",
                }  # fmt: skip
        return [found[name] for name in sorted(found)]
