"""What control messages are made of: checked fields, the objects inside messages, and how either is read.

A field's metadata holds its check. Unknown fields are ignored and missing ones take their default.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

from xiatb.errors import WireError
from xiatb.migration import fields as f

KINDS = ("rpc", "ram", "nbd", "probe")

T = TypeVar("T")
_REQUIRED = object()


def checked(check: f.Check, default: Any = _REQUIRED) -> Any:
    """A field of a message with its check, and its default if it may be missing."""
    if default is _REQUIRED:
        return field(metadata={"check": check})
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"check": check})
    return field(default=default, metadata={"check": check})


def build(cls: type[T], value: Any) -> T:
    """The dataclass `cls` of a JSON object, every field checked; raises `WireError`."""
    if not isinstance(value, dict):
        raise WireError("expected an object")
    arguments: dict[str, Any] = {}
    for spec in dataclasses.fields(cls):  # type: ignore[arg-type]
        if spec.name in value:
            try:
                arguments[spec.name] = spec.metadata["check"](value[spec.name])
            except WireError as error:
                raise WireError(f"{cls.__name__.lower()}.{spec.name}: {error}") from None
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise WireError(f"{cls.__name__.lower()}.{spec.name} is missing")
    return cls(**arguments)


def nested(cls: type[Any]) -> f.Check:
    """A check for a JSON object that holds the fields of dataclass `cls`."""
    return lambda value: build(cls, value)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One disk of a guest: its target name in the domain, path on both hosts, virtual and allocated bytes.

    `backing` (a path on both hosts), its format and `content`, its SHA-256, are set when the disk is copied
    only down to that file, which the destination must have. `file` says which file it is (storage.py) when
    the disk is not copied.
    """

    target: str = checked(f.text(16, r"[a-z][a-z0-9]*"))
    path: str = checked(f.PATH)
    size: int = checked(f.number(512, 1 << 44))
    format: str = checked(f.choice("qcow2", "raw"))
    allocated: int = checked(f.number(0, 1 << 44), 0)
    backing: str = checked(lambda v: v if v == "" else f.PATH(v), "")
    backing_format: str = checked(f.choice("", "qcow2", "raw"), "")
    content: str = checked(f.text(64, "([0-9a-f]{64})?"), "")
    file: str = checked(f.text(40, "([0-9a-f]+:[0-9a-f]+)?"), "")


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A bulk channel that the destination has granted: the token opens it once."""

    kind: str = checked(f.choice(*KINDS))
    index: int = checked(f.number(0, 63))
    token: str = checked(f.hexadecimal(16))


@dataclass(frozen=True, kw_only=True)
class Consent:
    """The guest's own word that it may move to one host, signed by the key behind its HID (consent.py)."""

    public: str = checked(f.hexadecimal(32))
    sequence: int = checked(f.number(1))
    signature: str = checked(f.hexadecimal(64))


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Page requests of a post-copy destination: how many, and the microseconds until the page came."""

    count: int = checked(f.number(0), 0)
    p50_us: int = checked(f.number(0), 0)
    p99_us: int = checked(f.number(0), 0)
    max_us: int = checked(f.number(0), 0)
