"""The operations of the control socket: what each request means on this node.

Every method named `op_...` is one operation; its name, arguments and answer are in docs/node.md.
All of them take hostile input: fields are checked, errors leave as ControlError.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from xiatb.errors import WireError, XiatbError
from xiatb.identity.consent import consent_bytes
from xiatb.node.control import Operation, Session
from xiatb.node.control_protocol import ControlError, Json, field, number
from xiatb.node.pinger import MAX_DATA, PingPlan
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

if TYPE_CHECKING:
    from xiatb.node.handover import Handover
    from xiatb.node.process import NodeProcess

MAX_PINGS = 1_000_000


def _xid(request: Json, name: str, kind: XidType) -> XID:
    """An XID of the given type out of a request's field. Raises ControlError EINVAL."""
    try:
        xid = XID.parse(field(request, name, str))
    except WireError as error:
        raise ControlError("EINVAL", f"{name}: {error.message}") from error
    if xid.type != kind:
        raise ControlError("EINVAL", f"{name}: {xid} is no {kind.name}")
    return xid


def _hex(request: Json, name: str) -> bytes:
    """Bytes out of a field of hex digits, empty when it is absent. Raises ControlError EINVAL."""
    text = field(request, name, str, "")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ControlError("EINVAL", f"{name}: must be hex digits") from error


class Operations:
    """All operations of one node process."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}

    def table(self) -> dict[str, Operation]:
        """The operations by name; those of guests only where guests attach."""
        names: dict[str, Operation] = {
            "status": self.op_status,
            "locator": self.op_locator,
            "bind": self.op_bind,
            "unbind": self.op_unbind,
            "subscribe": self.op_subscribe,
            "ping": self.op_ping,
            "resolve": self.op_resolve,
            "register": self.op_register,
            "name_of": self.op_name_of,
            "names": self.op_names,
            "routes": self.op_routes,
            "neighbours": self.op_neighbours,
            "handlers": self.op_handlers,
        }
        if self._node.config.is_gateway:
            names["joined"] = self.op_joined
            names["guest_expect"] = self.op_guest_expect
            names["guest_detach"] = self.op_guest_detach
            names["guest_wait"] = self.op_guest_wait
            names["guest_prepare"] = self.op_guest_prepare
            names["guest_delegate"] = self.op_guest_delegate
            names["guest_redirect"] = self.op_guest_redirect
        else:
            names["delegate"] = self.op_delegate
            names["consent"] = self.op_consent
        return names

    def op_status(self, session: Session, request: Json) -> Json:
        """Everything about the node at a glance."""
        node = self._node
        stats = node.stats()
        return {
            "name": node.config.name,
            "lab": node.config.lab,
            "kind": node.config.kind,
            "hid": str(node.hid),
            "ad": None if node.locator is None else str(node.locator.ad),
            "dag": None if node.locator is None else str(node.locator.dag),
            "joined": node.locator is not None,
            **node.data_plane.describe(),
            "uptime_s": round(time.monotonic() - node.started, 3),
            "ports": [{**port.describe(), **node.data_plane.describe_port(port)} for port in node.ports],
            "sids": [str(XID.from_key(key)) for key in node.bindings.sids()],
            "stats": stats,
        }

    def op_locator(self, session: Session, request: Json) -> Json:
        """The present locator; only `hid` is not null before the node has joined."""
        return self._node.locator_json()

    def op_subscribe(self, session: Session, request: Json) -> Json:
        """From now on this connection gets events; answers with the present locator."""
        session.subscribed = True
        return self._node.locator_json()

    def op_bind(self, session: Session, request: Json) -> Json:
        """Binds a SID to this connection."""
        sid = _xid(request, "sid", XidType.SID)
        self._node.bindings.bind(sid, _hex(request, "public"), _hex(request, "signature"), session)
        return {"sid": str(sid)}

    def op_unbind(self, session: Session, request: Json) -> Json:
        """Unbinds a SID of this connection."""
        self._node.bindings.unbind(_xid(request, "sid", XidType.SID), session)
        return {}

    async def op_ping(self, session: Session, request: Json) -> Json:
        """XCMP echo; an event for every answer, then the summary."""
        plan = PingPlan(
            dag=await self._node.services.resolve(field(request, "dag", str)),
            requests=int(number(request, "count", 1, 1, MAX_PINGS)),
            interval=number(request, "interval", 1.0, 0.0, 3600.0),
            timeout=number(request, "timeout", 1.0, 0.001, 3600.0),
            size=int(number(request, "size", 56, 0, MAX_DATA)),
        )
        request_id = request.get("id")
        return await self._node.pinger.run(plan, lambda event: session.send({**event, "id": request_id}))

    async def op_resolve(self, session: Session, request: Json) -> Json:
        """The address of a name."""
        return {"dag": str(await self._node.services.resolve(field(request, "name", str)))}

    async def op_name_of(self, session: Session, request: Json) -> Json:
        """The name of an address, as the name server knows it."""
        try:
            dag = DAG.parse(field(request, "dag", str))
        except WireError as error:
            raise ControlError("EINVAL", f"dag: {error.message}") from error
        return {"name": await self._node.services.name_of(dag)}

    def op_names(self, session: Session, request: Json) -> Json:
        """Where the name and rendezvous services are, and all that they know when they run here."""
        return self._node.services.directory()

    async def op_register(self, session: Session, request: Json) -> Json:
        """Names an address: a signed `record` goes to the name server, which checks it. Without one the name
        goes into the hosts file, and only of a SID that this connection has bound."""
        record = _hex(request, "record")
        if record:
            await self._node.services.register(record)
            return {}
        try:
            dag = DAG.parse(field(request, "dag", str))
        except WireError as error:
            raise ControlError("EINVAL", f"dag: {error.message}") from error
        if not self._node.bindings.owns(dag.intent, session):
            raise ControlError("EACCES", f"{dag.intent} is not bound by this connection")
        self._node.names.register(field(request, "name", str), dag)
        return {}

    def op_routes(self, session: Session, request: Json) -> Json:
        """All route tables: `{"AD": [{"xid", "port", "nexthop", "flags", "deliver"}, ...], ...}`."""
        return self._node.tables.describe()

    def op_neighbours(self, session: Session, request: Json) -> Json:
        """Neighbouring nodes as join and routing know them."""
        return {"neighbours": self._node.cores.neighbours()}

    def op_joined(self, session: Session, request: Json) -> Json:
        """Hosts that are attached here."""
        return {"hosts": self._node.cores.joined()}

    def op_handlers(self, session: Session, request: Json) -> Json:
        """Without arguments the names of all handlers; `read` reads one, `write` with `value` writes one."""
        router = self._node.router
        read = field(request, "read", str, None)
        write = field(request, "write", str, None)
        try:
            if read is not None:
                return {"value": router.read(read)}
            if write is not None:
                router.write(write, field(request, "value", str, ""))
                return {}
        except ControlError:
            raise
        except XiatbError as error:
            raise ControlError("EINVAL", error.message) from error
        return {
            name: {"read": sorted(element.read_handlers()), "write": sorted(element.write_handlers())}
            for name, element in router.elements.items()
        }

    def _guest_port(self, request: Json) -> int:
        wanted = field(request, "port", (str, int))
        for port in self._node.ports:
            if wanted in (port.index, port.name, port.label):
                return port.index
        raise ControlError("ENODEV", f"port: this node has no port {wanted!r}")

    async def op_guest_expect(self, session: Session, request: Json) -> Json:
        """Invites a host at a port until it has joined there; answers at once, event `guest_joined` later."""
        hid = _xid(request, "hid", XidType.HID)
        self._node.cores.expect(hid, self._guest_port(request))
        return {}

    async def op_guest_detach(self, session: Session, request: Json) -> Json:
        """Takes a host off: its route here goes."""
        self._node.cores.detach(_xid(request, "hid", XidType.HID))
        return {}

    def op_guest_prepare(self, session: Session, request: Json) -> Json:
        """An INVITE for a guest that is to come to a port, in hex; it is not sent."""
        hid = _xid(request, "hid", XidType.HID)
        return {"invite": self._handover.prepare(hid, self._guest_port(request)).hex()}

    def op_guest_delegate(self, session: Session, request: Json) -> Json:
        """Keeps the JOIN by which a guest has answered such an INVITE until `guest_expect`."""
        hid = _xid(request, "hid", XidType.HID)
        self._handover.delegate(hid, self._guest_port(request), _hex(request, "join"))
        return {}

    def op_guest_redirect(self, session: Session, request: Json) -> Json:
        """The guest goes to the router with locator `to`: sends its packets on for `seconds`, then detaches
        it."""
        hid, seconds = _xid(request, "hid", XidType.HID), number(request, "seconds", 10.0, 0.0, 60.0)
        try:
            to = DAG.parse(field(request, "to", str))
        except WireError as error:
            raise ControlError("EINVAL", f"to: {error.message}") from error
        self._handover.redirect(hid, to, seconds)
        return {}

    @property
    def _handover(self) -> Handover:
        handover: Handover = self._node.cores.handover  # type: ignore[attr-defined]
        return handover

    def op_delegate(self, session: Session, request: Json) -> Json:
        """Answers a router's INVITE, which somebody has brought, by a JOIN for its later use."""
        return {"join": self._node.cores.delegate(_hex(request, "invite")).hex()}

    def op_consent(self, session: Session, request: Json) -> Json:
        """The host's word, by the key behind its HID, that it may be moved to the host of a service."""
        node = self._node
        sequence = time.time_ns()
        signed = consent_bytes(node.hid, _xid(request, "destination", XidType.SID), sequence)
        return {
            "public": node.key.public.hex(),
            "sequence": sequence,
            "signature": node.key.sign(signed).hex(),
        }

    async def op_guest_wait(self, session: Session, request: Json) -> Json:
        """Answers when the host is joined here. Raises ControlError ETIMEDOUT."""
        hid = _xid(request, "hid", XidType.HID)
        timeout = number(request, "timeout", 10.0, 0.0, 3600.0)
        found = self._node.cores.attachment(hid)
        if found is not None:
            return found
        joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(hid.key, set())
        waiters.add(joined)
        try:
            await asyncio.wait_for(joined, timeout)
        except TimeoutError:
            raise ControlError("ETIMEDOUT", f"{hid} has not joined in {timeout:g} s") from None
        finally:
            waiters.discard(joined)
        return self._node.cores.attachment(hid) or {}

    def host_joined(self, hid: XID) -> None:
        """Wakes those who wait for this host (called by the node)."""
        for joined in self._waiters.pop(hid.key, set()):
            if not joined.done():
                joined.set_result(None)
