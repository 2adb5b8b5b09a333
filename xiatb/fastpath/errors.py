"""What can go wrong with the eBPF engine."""

from __future__ import annotations

from xiatb.errors import XiatbError


class FastpathError(XiatbError):
    """The engine cannot be loaded, attached or written to; the message has the kernel's words.

    `errno` is the kernel's number, 0 when the kernel was not asked.
    """

    def __init__(self, message: str, number: int = 0, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.errno = number


class TableFullError(FastpathError):
    """The route map takes no further entry; what was in it is unchanged."""
