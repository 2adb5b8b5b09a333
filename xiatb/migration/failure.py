"""What a user's migration fails with."""

from __future__ import annotations

from typing import Any

from xiatb.errors import XiatbError


class MigrationError(XiatbError):
    """A migration did not take place; `code` is the protocol's reason and the guest runs on where it was."""

    def __init__(
        self, code: str, message: str, *, hint: str = "", result: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.result = result or {}
