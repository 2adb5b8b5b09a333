"""Calls of libvirt's RPC as its client makes them, for tests and for simulated libvirtd.

XDR, RFC 4506; procedures and arguments of remote_protocol.x.
"""

from __future__ import annotations

import struct

from tests.migration.samples import UUID
from xiatb.migration.peercalls import _parameters, _Xdr
from xiatb.migration.rpcgate import PROGRAM

RESUME, MIRROR = 1 << 19, 1 << 6
"""VIR_MIGRATE_POSTCOPY_RESUME, VIR_MIGRATE_NON_SHARED_DISK."""
XML = (
    "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='KiB'>{kib}</memory>"
    "<vcpu>1</vcpu><os><type machine='pc-q35-7.2'>hvm</type></os>"
    "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices></domain>"
)


def packet(procedure: int, body: bytes = b"", *, program: int = PROGRAM, version: int = 1, kind: int = 0,
           serial: int = 1, status: int = 0) -> bytes:  # fmt: skip
    return struct.pack(">7I", 28 + len(body), program, version, procedure, kind, serial, status) + body


def opaque(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def parameters(*pairs: tuple[str, str | int]) -> bytes:
    """Typed parameters: strings (7) and unsigned hypers (4)."""
    packed = struct.pack(">I", len(pairs))
    for name, value in pairs:
        packed += opaque(name.encode())
        packed += (
            struct.pack(">I", 7) + opaque(value.encode())
            if isinstance(value, str)
            else struct.pack(">IQ", 4, value)
        )
    return packed


def description(name: str, *, uuid: str = UUID, kib: int = 1, devices: str = "") -> str:
    return XML.format(name=name, uuid=uuid, kib=kib, devices=devices)


def prepare(xml: str, *more: tuple[str, str | int], cookie: bytes = b"", flags: int = 0) -> bytes:
    """Arguments of domain_migrate_prepare3_params."""
    return parameters(("destination_xml", xml), *more) + opaque(cookie) + struct.pack(">I", flags)


def finish(name: str, *more: tuple[str, str | int], cookie: bytes = b"", cancelled: int = 0,
           flags: int = 0) -> bytes:  # fmt: skip
    """Arguments of domain_migrate_finish3_params."""
    typed = parameters(("destination_name", name), *more)
    return typed + opaque(cookie) + struct.pack(">II", flags, cancelled)


def uri(path: str) -> str:
    """Of a socket in the other simulated host's directory: a real one has the same path in its own /run."""
    swapped = {"hv1": "hv2", "hv2": "hv1"}
    return "unix://" + "/".join(swapped.get(part, part) for part in path.split("/"))


def told(body: bytes) -> tuple[dict[str, str], int]:
    """What a Prepare's arguments say: its strings, those that are URIs of sockets as paths; and its flags."""
    arguments = _Xdr(body)
    typed = {name: str(values[0]).removeprefix("unix://") for name, values in _parameters(arguments).items()}
    arguments.string()
    return typed, arguments.number()
