"""What a peer may ask this host's libvirtd: the calls of the one migration that was admitted, and no others.

The set was read off real migrations with our flags, in every mode, cancelled and taken up again (procedures
of libvirt 9.0's remote_protocol.x). Each call is held until it is whole. Arguments are XDR (RFC 4506). The
guest's description is compared with the request that was admitted, as far as docs/migration-policy.md says.
"""

from __future__ import annotations

import logging
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

from xiatb.errors import WireError, XiatbError
from xiatb.migration import params
from xiatb.migration.facts import facts_of
from xiatb.migration.messages import Request
from xiatb.migration.rpcgate import CALL, PROGRAM, RpcMessage, RpcWatch
from xiatb.migration.wirestream import Wire

log = logging.getLogger("xiatb.migration")
MAX_CALL: Final = 1 << 20
"""Bytes of the longest call; the longest that was seen, Finish, has 6 to 8 KiB."""
OPEN: Final = 1
PREPARE, FINISH = 303, 306
"""domain_migrate_prepare3_params and domain_migrate_finish3_params."""
PLAIN: Final = {2: 28, 60: 32, 66: 28, 360: 28, 361: 28}
"""connect_close, connect_supports_feature, auth_list, connect_register_close_callback and ..._unregister_...,
with the length of each."""
KEEPALIVE: Final = 0x6B656570
PING, PONG = 1, 2
MESSAGE: Final = 2
"""The type of a message that has no answer."""
SYSTEM: Final = b"\0\0\0\1\0\0\0\x0eqemu:///system\0\0\0\0\0\0"
"""The arguments of connect_open: the system's QEMU driver, no flags."""
MAX_PARAMS: Final = 64
"""REMOTE_DOMAIN_MIGRATE_PARAM_LIST_MAX."""
_WIDTH: Final = {1: 4, 2: 4, 3: 8, 4: 8, 5: 8, 6: 4}
_STRING: Final = 7


class CallGate:
    """Of one `rpc` channel. `directory` is the daemon's runtime directory."""

    def __init__(self, request: Request, directory: Path) -> None:
        self._request = request
        self._watch = RpcWatch(MAX_CALL, keep=True)
        self._strings = {
            "destination_name": request.guest,
            "migrate_uri": f"unix://{params.ram_socket(directory, request.job)}",
            "disks_uri": f"unix://{params.disk_socket(directory, request.job)}",
            "compression": "xbzrle",
        }

    def admit(self, data: bytes) -> bytes:
        """The calls that `data` completes, unchanged; raises WireError for what the peer may not ask."""
        calls = self._watch.feed(data)
        for call in calls:
            self._check(call)
        if self._watch.broken:
            raise WireError(f"what came is no call of libvirt of at most {MAX_CALL} bytes")
        return b"".join(call.whole for call in calls)

    def _check(self, call: RpcMessage) -> None:
        kind = (call.program, call.version, call.type, call.status)
        length = len(call.whole)
        if kind == (KEEPALIVE, 1, MESSAGE, 0) and call.procedure in (PING, PONG) and length == 28:
            return
        if kind != (PROGRAM, 1, CALL, 0):
            raise WireError(f"{_named(call)}: not a call that a migration makes")
        if PLAIN.get(call.procedure) == length:
            return
        if call.procedure == OPEN and call.whole[28:] == SYSTEM:
            return
        if call.procedure not in (PREPARE, FINISH):
            raise WireError(f"{_named(call)}: not a call that a migration makes")
        try:
            self._check_guest(call)
        except (XiatbError, ET.ParseError, ValueError, KeyError) as error:
            raise WireError(f"{_named(call)}: {error}") from None

    def _check_guest(self, call: RpcMessage) -> None:
        """Prepare: params, cookie, u32 flags; Finish: u32 cancelled besides."""
        body = _Xdr(call.whole[28:])
        told = _strings(body)
        cookie = body.string()
        if len(body.rest()) != (8 if call.procedure == FINISH else 4):
            raise WireError("not the arguments of this call")
        needed = "destination_name" if call.procedure == FINISH else "destination_xml"
        if needed not in told:
            raise WireError(f"no {needed}")
        for name, value in told.items():
            if name == "destination_xml":
                self._check_description(value)
            elif name != "migrate_disks" and value != self._strings.get(name):
                raise WireError(f"{name} {value[:80]!r} is not what was admitted")
        if cookie:
            self._check_cookie(cookie.removesuffix(b"\0").decode())

    def _check_description(self, text: str) -> None:
        facts, wanted = facts_of(_plain(text, "<domain")), self._request
        if (facts.name, facts.uuid) != (wanted.guest, wanted.uuid):
            raise WireError(f"{facts.name[:80]!r} ({facts.uuid[:40]!r}) is not the guest that was admitted")
        foreign = {path for _, path, _ in facts.disks} - {disk.path for disk in wanted.disks}
        foreign |= set(facts.files) - set(wanted.files)
        if foreign:
            raise WireError(f"{min(foreign)[:80]!r} was not admitted")
        if facts.memory > wanted.memory:
            raise WireError(f"{facts.memory} bytes of memory, {wanted.memory} were admitted")

    def _check_cookie(self, text: str) -> None:
        """It brings the definition that libvirt keeps of the guest, too."""
        root = ET.fromstring(_plain(text, "<qemu-migration"))  # noqa: S314 - _plain: no declarations
        for one in (root, *root.iterfind("domain")):
            name, uuid = one.findtext("name", ""), one.findtext("uuid", "")
            if (name, uuid) != (self._request.guest, self._request.uuid):
                raise WireError(f"a cookie of guest {name[:80]!r} ({uuid[:40]!r})")


def _named(call: RpcMessage) -> str:
    return f"program {call.program:#x} procedure {call.procedure} (type {call.type}, version {call.version})"


def _plain(text: str, root: str) -> str:
    """The text itself, if libvirt must read in it what we do: neither declarations nor another encoding."""
    if not text.startswith(root) or "<!DOCTYPE" in text or "\0" in text:
        raise WireError(f"no plain {root}>")
    return text


class _Xdr:
    """Reads XDR from bytes; raises WireError past their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise WireError("its arguments end too early")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self) -> int:
        return int(struct.unpack(">I", self.take(4))[0])

    def string(self) -> bytes:
        """Variable-length opaque data, padded to 4 bytes."""
        length = self.number()
        return self.take(length + -length % 4)[:length]

    def rest(self) -> bytes:
        return self._data[self._at :]


def _strings(body: _Xdr) -> dict[str, str]:
    """The typed parameters that are strings; numbers are left to libvirt. One name may come once only, but
    for migrate_disks."""
    count = body.number()
    if count > MAX_PARAMS:
        raise WireError(f"{count} parameters")
    told: dict[str, str] = {}
    for _ in range(count):
        name, kind = body.string().decode(), body.number()
        if kind != _STRING:
            if kind not in _WIDTH:
                raise WireError(f"parameter {name[:80]!r} of type {kind}")
            body.take(_WIDTH[kind])
            continue
        if name in told and name != "migrate_disks":
            raise WireError(f"{name[:80]!r} twice")
        told[name] = body.string().decode()
    return told


class GatedWire:
    """A `Wire` of which only what `gate` admits can be read; `name` is for the log."""

    def __init__(self, inner: Wire, gate: CallGate, name: str) -> None:
        self._inner = inner
        self._gate = gate
        self._name = name

    async def read(self, limit: int) -> bytes:
        """See Wire; may give more than `limit`: a whole call. Raises WireError for a call that is refused."""
        while data := await self._inner.read(limit):
            try:
                admitted = self._gate.admit(data)
            except WireError as error:
                log.warning("%s: refused on the rpc channel: %s", self._name, error)
                raise
            if admitted:
                return admitted
        return b""

    async def write(self, data: bytes) -> None:
        """See Wire."""
        await self._inner.write(data)

    def write_eof(self) -> None:
        """See Wire."""
        self._inner.write_eof()

    def set_bound(self, limit: int) -> None:
        """See Wire."""
        self._inner.set_bound(limit)

    def backlog(self) -> int:
        """See Wire."""
        return self._inner.backlog()

    def round_trip(self) -> float:
        """See Wire."""
        return self._inner.round_trip()

    def origin(self) -> str:
        """See Wire."""
        return self._inner.origin()

    def abort(self) -> None:
        """See Wire."""
        self._inner.abort()

    async def close(self) -> None:
        """See Wire."""
        await self._inner.close()
