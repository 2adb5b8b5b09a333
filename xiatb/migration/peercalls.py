"""What a peer may ask this host's libvirtd: the calls of the one migration that was admitted, and no others.

The set was read off real migrations with our flags, in every mode, cancelled and taken up again (procedures
of libvirt 9.0's remote_protocol.x). Each call is held until it is whole. Arguments are XDR (RFC 4506). The
guest's description and libvirt's cookie are judged by lists of what they may hold (description.py).
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Final

from xiatb.errors import WireError, XiatbError
from xiatb.migration import params
from xiatb.migration.description import cookie_shape, domain_shape
from xiatb.migration.messages import Request
from xiatb.migration.rpcgate import CALL, PROGRAM, RpcMessage, RpcWatch
from xiatb.migration.shapes import judge, parse
from xiatb.migration.wirestream import OuterWire, Wire

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
FREE: Final = frozenset((
    "bandwidth", "bandwidth.postcopy", "compression.xbzrle.cache", "auto_converge.initial",
    "auto_converge.increment",
))  # fmt: skip
"""Numbers that a source may choose."""
_WIDTH: Final = {1: 4, 2: 4, 3: 8, 4: 8}
"""Bytes of an integer by type: int, unsigned, hyper, unsigned hyper."""
_STRING: Final = 7


class CallGate:
    """Of one `rpc` channel. `directory` is the daemon's runtime directory, `lab` the lab's name."""

    def __init__(self, request: Request, directory: Path, lab: str) -> None:
        self._request = request
        self._watch = RpcWatch(MAX_CALL, keep=True)
        self._domain = domain_shape(request, lab)
        self._cookie = cookie_shape(request, lab)
        self._flags = params.allowed_flags(request)
        self._values: dict[str, str | int] = {
            "destination_name": request.guest,
            "migrate_uri": f"unix://{params.ram_socket(directory, request.job)}",
            "disks_uri": f"unix://{params.disk_socket(directory, request.job)}",
            "compression": "xbzrle",
            "parallel.connections": request.streams,
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
        except (XiatbError, UnicodeDecodeError) as error:
            raise WireError(f"{_named(call)}: {error}") from None

    def _check_guest(self, call: RpcMessage) -> None:
        """Prepare: params, cookie, u32 flags; Finish: u32 cancelled besides."""
        body = _Xdr(call.whole[28:])
        told = _parameters(body)
        cookie = body.string()
        if len(body.rest()) != (8 if call.procedure == FINISH else 4):
            raise WireError("not the arguments of this call")
        flags = body.number()
        if flags & ~self._flags:
            raise WireError(f"flags {flags & ~self._flags:#x} are not those of what was admitted")
        needed = ["destination_name"]
        if call.procedure == PREPARE:
            # Without the URIs libvirt would listen for memory and disks on the network.
            disks = ["disks_uri"] if flags & params.STORAGE else []
            needed = ["destination_xml", "migrate_uri", *disks]
        for name in needed:
            if name not in told:
                raise WireError(f"no {name}")
        for name, values in told.items():
            for value in values:
                self._check_parameter(name, value)
        if cookie:
            judge(parse(cookie.removesuffix(b"\0").decode(), "qemu-migration"), self._cookie)

    def _check_parameter(self, name: str, value: str | int) -> None:
        if name == "destination_xml" and isinstance(value, str):
            judge(parse(value, "domain"), self._domain)
        elif name == "migrate_disks":
            if value not in [disk.target for disk in self._request.disks]:
                raise WireError(f"no disk {str(value)[:80]!r} was admitted")
        elif (name not in FREE or isinstance(value, str)) and value != self._values.get(name):
            raise WireError(f"{name[:80]} {str(value)[:80]!r} is not what was admitted")


def _named(call: RpcMessage) -> str:
    return f"program {call.program:#x} procedure {call.procedure} (type {call.type}, version {call.version})"


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


def _parameters(body: _Xdr) -> dict[str, list[str | int]]:
    """The typed parameters by name: strings, integers, no others. One name may come once only, but for
    migrate_disks."""
    count = body.number()
    if count > MAX_PARAMS:
        raise WireError(f"{count} parameters")
    told: dict[str, list[str | int]] = {}
    for _ in range(count):
        name, kind = body.string().decode(), body.number()
        if name in told and name != "migrate_disks":
            raise WireError(f"{name[:80]!r} twice")
        if kind == _STRING:
            value: str | int = body.string().decode()
        elif kind in _WIDTH:
            value = int.from_bytes(body.take(_WIDTH[kind]), "big")
        else:
            raise WireError(f"parameter {name[:80]!r} of type {kind}")
        told.setdefault(name, []).append(value)
    return told


class GatedWire(OuterWire):
    """A `Wire` of which only what `gate` admits can be read; `name` is for the log."""

    def __init__(self, inner: Wire, gate: CallGate, name: str) -> None:
        super().__init__(inner)
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

    async def close(self) -> None:
        """See Wire."""
        await self._inner.close()
