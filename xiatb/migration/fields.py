"""Checks of single fields of control messages: each takes a decoded JSON value and gives it back, normalised.

A check raises `WireError` for a value of the wrong type or out of bounds. Bounds are strict on purpose:
what a peer may send is limited here, once, so that no other module needs to distrust it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from xiatb.errors import WireError
from xiatb.wire.xid import XID

Check = Callable[[Any], Any]
U63 = (1 << 63) - 1


def text(limit: int, pattern: str = "") -> Check:
    """A string of at most `limit` printable characters (so none that steers a terminal, and no half of a
    surrogate pair), fully matching `pattern` if given."""
    compiled = re.compile(pattern) if pattern else None

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > limit:
            raise WireError(f"expected a string of at most {limit} characters")
        if not value.isprintable():
            raise WireError("control characters in a string")
        if compiled is not None and not compiled.fullmatch(value):
            raise WireError(f"string {value[:40]!r} does not have the expected form")
        return value

    return check


def words(limit: int) -> Check:
    """A sentence for people of at most `limit` characters. What cannot be printed becomes a space: errors of
    libvirt and QEMU have several lines, and such a message must not be lost over its form."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > limit:
            raise WireError(f"expected a string of at most {limit} characters")
        return "".join(c if c.isprintable() else " " for c in value)

    return check


def number(low: int, high: int = U63) -> Check:
    """An integer between `low` and `high`, both included (a boolean is not a number)."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise WireError(f"expected an integer between {low} and {high}")
        return value

    return check


def flag(value: Any) -> bool:
    """A boolean."""
    if not isinstance(value, bool):
        raise WireError("expected true or false")
    return value


def sequence(item: Check, limit: int) -> Check:
    """A list of at most `limit` values that each pass `item`; given back as a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > limit:
            raise WireError(f"expected a list of at most {limit} items")
        return tuple(item(element) for element in value)

    return check


def mapping(limit: int, key: Check, item: Check) -> Check:
    """An object of at most `limit` entries whose keys and values pass; given back as a dict."""

    def check(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict) or len(value) > limit:
            raise WireError(f"expected an object of at most {limit} entries")
        return {key(name): item(element) for name, element in value.items()}

    return check


def choice(*allowed: str) -> Check:
    """One of the given strings."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise WireError(f"expected one of {', '.join(allowed)}")
        return value

    return check


def xid(value: Any) -> str:
    """An XID in text form, given back in canonical spelling."""
    if not isinstance(value, str) or len(value) > 64:
        raise WireError("expected an XID")
    return str(XID.parse(value))


def hexadecimal(size: int) -> Check:
    """`size` bytes in lower-case hexadecimal."""
    return text(2 * size, f"[0-9a-f]{{{2 * size}}}")


NAME = text(64, r"[A-Za-z0-9][A-Za-z0-9._-]*")
JOB = text(16, r"[0-9a-f]{8,16}")
UUID = text(36, r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
PATH = text(256, r"/[A-Za-z0-9._/+-]*")
WORDS = words(1000)
