"""Calls of libvirt's RPC as its client makes them, for tests and for simulated libvirtd.

XDR, RFC 4506; procedures and arguments of remote_protocol.x. A simulated libvirtd carries what it has to say
in the description's text.
"""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape

from tests.migration.samples import UUID
from xiatb.migration.rpcgate import PROGRAM

XML = (
    "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><description>{note}</description>"
    "<memory unit='KiB'>{kib}</memory><vcpu>1</vcpu><os><type machine='pc-q35-7.2'>hvm</type></os>"
    "<devices>{devices}</devices></domain>"
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


def description(name: str, note: str = "", *, uuid: str = UUID, kib: int = 1, devices: str = "") -> str:
    return XML.format(name=name, uuid=uuid, note=escape(note), kib=kib, devices=devices)


def prepare(xml: str, *more: tuple[str, str | int], cookie: bytes = b"") -> bytes:
    """Arguments of domain_migrate_prepare3_params."""
    return parameters(("destination_xml", xml), *more) + opaque(cookie) + bytes(4)


def finish(name: str, *more: tuple[str, str | int], cookie: bytes = b"", cancelled: int = 0) -> bytes:
    """Arguments of domain_migrate_finish3_params."""
    typed = parameters(("destination_name", name), *more)
    return typed + opaque(cookie) + bytes(4) + struct.pack(">I", cancelled)


def note(body: bytes) -> str:
    """What the description in a Prepare's arguments was told to carry."""
    start = body.index(b"<domain")
    return ET.fromstring(body[start : body.index(b"</domain>") + 9]).findtext("description", "")
