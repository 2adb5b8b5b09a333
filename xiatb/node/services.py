"""Name service and rendezvous on a node: client on every node, server where the lab's hosts file says.

The hosts file is the bootstrap: `ns.LAB.xia` is the name server's address, `rendezvous.LAB.xia` the
rendezvous service's for data. The node whose HID is in such an address runs that service. A host or guest
tells both where it is, at once with every new locator, and again before that runs out.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xiatb.click.packet import Packet
from xiatb.errors import WireError, XiatbError
from xiatb.identity import keys
from xiatb.node.context import write_log
from xiatb.node.control_protocol import ControlError, Json
from xiatb.node.requests import Requests
from xiatb.wire import extension, nameservice, rendezvous, xdgram, xip
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.nameservice import Kind, NameMessage
from xiatb.wire.rendezvous import Control, Verb
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import SID_NS, SID_RENDEZVOUS, SID_RENDEZVOUS_CONTROL, XID, XidType

if TYPE_CHECKING:
    from xiatb.node.nameserver import NameServer
    from xiatb.node.process import NodeProcess
    from xiatb.node.rendezvous import Rendezvous

TTL = 3600
"""Seconds that a node's own registrations hold; it repeats them every third of that."""
SESSIONS_FIRST = 0.05
"""Seconds that a guest's registrations leave its applications for telling their peers of a move: a processor
of an emulated guest signs one thing at a time."""
RETRY = (0.5, 60.0)
"""First and longest pause after a registration that nobody answered, seconds."""


class Services:
    """The network services of one node process."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._requests = Requests()
        self._server: NameServer | None = None
        self._rendezvous: Rendezvous | None = None
        self._seq = 0
        self._telling: asyncio.Task[None] | None = None
        self._malformed = 0

    # Where the services are

    def _static(self, label: str) -> DAG | None:
        try:
            return self._node.names.addresses().get(f"{label}.{self._node.config.lab}.xia")
        except ControlError:
            return None

    def name_server(self) -> DAG | None:
        """The address of the lab's name server, None when it has none."""
        return self._static("ns")

    def rendezvous(self) -> DAG | None:
        """The data address (AD HID SID) of the lab's rendezvous service, None when it has none."""
        found = self._static("rendezvous")
        return found if found is not None and found.intent == SID_RENDEZVOUS else None

    def start(self) -> None:
        """Runs the services that are this node's. Called once the graph runs.

        The servers are imported here, as an emulated guest takes long over each module that it does not need.
        """
        node = self._node
        node.context.serve("service", self._receive)
        own = [
            found is not None and found.intent_hid == node.hid
            for found in (self.name_server(), self.rendezvous())
        ]
        if own[0]:
            from xiatb.node.nameserver import NameServer

            self._server = NameServer(node.key, node.names.addresses)
            node.tables.set(SID_NS.key, Entry(SELF))
        if own[1]:
            from xiatb.node.rendezvous import Rendezvous

            self._rendezvous = Rendezvous(node.key)
            node.tables.set(SID_RENDEZVOUS_CONTROL.key, Entry(SELF))
            node.tables.set(SID_RENDEZVOUS.key, Entry(SELF))
            element: Any = node.router.elements.get("core/local/rendezvous")
            if element is None:
                write_log("warning", "this node's graph has no core/local/rendezvous: nothing is redirected")
            else:
                element.locate = self._locate

    def _locate(self, hid_key: bytes) -> DAG | None:
        return None if self._rendezvous is None else self._rendezvous.locate(hid_key, time.monotonic())

    def close(self) -> None:
        """Ends what is under way."""
        if self._telling is not None:
            self._telling.cancel()

    # Datagrams

    def _receive(self, packet: Packet) -> None:
        """A datagram for this node itself: a question to a service that runs here, or an answer."""
        try:
            header = xip.parse(packet.data, packet.net)
            kinds, start = extension.chain(header.nxt, packet.data, header.payload_off, header.end)
            if not kinds or kinds[-1].kind != xip.NXT_XDGRAM:
                raise WireError("no datagram")
            payload, intent, source = bytes(packet.data[start : header.end]), header.intent_key, header.src()
        except WireError:
            self._malformed += 1
            return
        server: NameServer | Rendezvous | None = None
        if intent == SID_NS.key:
            server = self._server
        elif intent == SID_RENDEZVOUS_CONTROL.key:
            server = self._rendezvous
        elif intent == self._node.hid.key:
            self._requests.receive(payload)
            return
        answer = None if server is None else server.receive(payload, time.monotonic())
        if answer is not None:
            self._send(source, answer, XID.from_key(intent))

    def _send(self, to: DAG, payload: bytes, sid: XID | None = None) -> None:
        locator = self._node.locator
        if locator is None:
            return
        source = locator.dag if sid is None else served(locator.dag, sid)
        packet = xip.build(xip.NXT_XDGRAM, to, source, xdgram.pack(payload))
        self._node.inject("xip", Packet.from_xip(packet))

    # Names

    async def resolve(self, name: str) -> DAG:
        """The address of a name: as the name server knows it, else as the hosts file has it. An address in
        text is itself. Raises ControlError ENOENT, EINVAL."""
        node = self._node
        server = self.name_server()
        if not nameservice_name(name) or server is None or node.locator is None:
            return node.names.resolve(name)
        question = NameMessage(Kind.QUERY, (name.lower(),), os.urandom(nameservice.NONCE_LEN))
        try:
            answer = await self._ask(server, question)
        except ControlError as error:
            if error.code not in ("ETIMEDOUT", "EAGAIN"):
                raise
            write_log("warning", f"the name server does not answer: {name} is looked up in the hosts file")
            return node.names.resolve(name)
        if answer.kind is Kind.ERROR:
            return node.names.resolve(name)
        return answer.dag()

    async def name_of(self, dag: DAG) -> str:
        """The name of an address, by its final intent. Raises ControlError ENOENT, ENOTSUP, ETIMEDOUT."""
        server = self._required()
        question = NameMessage(Kind.RQUERY, (dag.dag_string(),), os.urandom(nameservice.NONCE_LEN))
        answer = await self._ask(server, question)
        if answer.kind is Kind.ERROR:
            raise ControlError("ENOENT", f"nothing is called {dag}")
        return answer.strings[0]

    async def register(self, record: bytes) -> None:
        """Passes a signed REGISTER to the name server. Raises ControlError: what the server says, EINVAL,
        ENOTSUP (there is none), ETIMEDOUT."""
        try:
            message = nameservice.parse(record)
        except WireError as error:
            raise ControlError("EINVAL", f"record: {error.message}") from error
        if message.kind is not Kind.REGISTER or not message.nonce:
            raise ControlError("EINVAL", "record: is no signed registration")
        await self._register(message)

    async def _register(self, message: NameMessage) -> None:
        answer = await self._ask(self._required(), message)
        if answer.kind is Kind.ERROR:
            code, _, text = answer.strings[0].partition(" ")
            if code == "ESTALE":
                self._seq = max(self._seq, answer.seq)
            raise ControlError(code if code.isalpha() and code.isupper() else "EPROTO", text)

    def _required(self) -> DAG:
        server = self.name_server()
        if server is None:
            raise ControlError("ENOTSUP", "this lab has no name server")
        return server

    async def _ask(self, server: DAG, message: NameMessage) -> NameMessage:
        """The name server's genuine answer. Raises ControlError."""
        payload = message.pack()
        if self._server is not None:
            reply = self._server.receive(payload, time.monotonic())
            if reply is None:
                raise ControlError("EINVAL", "the name server made nothing of that")
            return nameservice.parse(reply)
        hid = server.intent_hid

        def accept(data: bytes) -> NameMessage | None:
            try:
                answer = nameservice.parse(data)
            except WireError:
                return None
            if answer.nonce != message.nonce or answer.kind in (Kind.REGISTER, Kind.QUERY, Kind.RQUERY):
                return None
            if keys.xid_of(answer.public, XidType.HID) != hid:
                return None
            return answer if keys.verify(answer.public, answer.signature, answer.signed_bytes()) else None

        return await self._requests.ask(lambda: self._send(server, payload), accept)

    # Telling the services where this node is

    def located(self) -> None:
        """The node has a new locator: hosts and guests tell the services at once."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if not self._node.config.is_gateway and (self.name_server() or self.rendezvous()):
            self._telling = self._node.loop.create_task(self._tell())

    async def _tell(self) -> None:
        """Registers with both services, and again before the registration runs out."""
        pause = RETRY[0]
        if self._node.config.attach == "direct":
            await asyncio.sleep(SESSIONS_FIRST)
        while True:
            results = [await told for told in (self._tell_rendezvous(), self._tell_names())]
            if all(results):
                await asyncio.sleep(TTL / 3)
                pause = RETRY[0]
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY[1])

    def _next_seq(self) -> int:
        self._seq = max(self._seq + 1, time.time_ns())
        return self._seq

    async def _tell_names(self) -> bool:
        """Registers NODE.LAB.xia; False when nobody answered."""
        node = self._node
        if self.name_server() is None or node.locator is None:
            return True
        name = f"{node.config.name}.{node.config.lab}.xia"
        record = registration(name, node.locator.dag, node.key, self._next_seq())
        return await self._told(f"name {name}", self.register(record))

    async def _tell_rendezvous(self) -> bool:
        """Registers the HID with the rendezvous service; False when nobody answered."""
        node, service = self._node, self.rendezvous()
        if service is None or node.locator is None:
            return True
        bare = Control(Verb.REGISTER, node.hid, str(node.locator.dag), self._next_seq(), node.key.public)
        payload = bare.signed(node.key.sign(bare.signed_bytes())).pack()
        control = service.with_intent(SID_RENDEZVOUS_CONTROL)
        accept = rendezvous_answer(service.intent_hid, node.hid)

        async def ask() -> None:
            answer = await self._requests.ask(lambda: self._send(control, payload), accept)
            if answer.verb is Verb.STALE:
                self._seq = max(self._seq, answer.seq)
            if answer.verb is not Verb.ACK:
                raise ControlError("EACCES", f"the rendezvous service says {answer.verb.value}")

        return await self._told("rendezvous", ask())

    async def _told(self, what: str, work: Any) -> bool:
        try:
            await work
        except XiatbError as error:
            write_log("warning", f"{what}: {error.message}")
            return getattr(error, "code", "") not in ("ETIMEDOUT", "EAGAIN", "ESTALE")
        write_log("info", f"{what}: registered")
        locator = self._node.locator
        if locator is not None:
            kind = what.partition(" ")[0]
            self._node.control.publish({"event": "registered", "with": kind, "dag": str(locator.dag)})
        return True

    # For people

    def directory(self) -> Json:
        """{"name_server", "rendezvous": addresses or null, "names": those that this node serves or null,
        "hosts": those that its rendezvous service knows or null}."""
        now = time.monotonic()
        server, meeting = self.name_server(), self.rendezvous()
        return {
            "name_server": None if server is None else str(server),
            "rendezvous": None if meeting is None else str(meeting),
            "names": None if self._server is None else self._server.listing(now),
            "hosts": None if self._rendezvous is None else self._rendezvous.listing(now),
        }

    def stats(self) -> Json:
        """Counters of the services that run here."""
        found: Json = {"datagrams": {"malformed": self._malformed, "stray": self._requests.stray}}
        if self._server is not None:
            found["names"] = dict(self._server.stats)
        if self._rendezvous is not None:
            found["rendezvous"] = dict(self._rendezvous.stats)
        return found


def nameservice_name(text: str) -> bool:
    """Whether a text is a name rather than an address."""
    return 0 < len(text) <= nameservice.MAX_NAME and ":" not in text and not text.startswith("http")


def registration(name: str, dag: DAG, key: keys.KeyPair, seq: int, ttl: int = TTL) -> bytes:
    """A REGISTER of `name` at `dag` by `key`, whose hash must be the final intent. Raises WireError."""
    nonce = os.urandom(nameservice.NONCE_LEN)
    strings = (name.lower(), dag.dag_string())
    bare = NameMessage(Kind.REGISTER, strings, nonce, seq, ttl, key.public)
    return bare.signed(key.sign(bare.signed_bytes())).pack()


def rendezvous_answer(server: XID | None, hid: XID) -> Callable[[bytes], Control | None]:
    """What takes the genuine answers of the service on `server` to registrations of `hid`."""

    def accept(data: bytes) -> Control | None:
        try:
            answer = rendezvous.parse(data)
        except WireError:
            return None
        if answer.verb is Verb.REGISTER or answer.hid != hid:
            return None
        if keys.xid_of(answer.public, XidType.HID) != server:
            return None
        return answer if keys.verify(answer.public, answer.signature, answer.signed_bytes()) else None

    return accept
