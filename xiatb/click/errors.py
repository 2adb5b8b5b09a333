"""What can go wrong in a Click configuration or with a handler."""

from __future__ import annotations

from typing import NamedTuple

from xiatb.errors import InvalidFileError, XiatbError


class Location(NamedTuple):
    """A place in a source file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class ClickFileError(InvalidFileError):
    """A configuration has errors; `problems` lists all of them as `file:line:col: text`."""


class ConfigError(XiatbError):
    """An argument of an element is not acceptable; `index` is its place among the arguments, if known."""

    exit_code = 2

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class HandlerError(XiatbError):
    """A handler does not exist or refused; `code` is the ControlSocket reply code."""

    def __init__(self, message: str, code: int = 520) -> None:
        super().__init__(message)
        self.code = code


class Problems:
    """Collects the errors of a configuration, so that one run reports all of them."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[tuple[Location, str]] = []

    def add(self, where: Location, text: str) -> None:
        """Note one error; the same text at the same place is kept once."""
        if (where, text) not in self.entries:
            self.entries.append((where, text))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def lines(self) -> list[str]:
        """All errors as `file:line:col: text`, in order of place."""
        return [f"{where}: {text}" for where, text in sorted(self.entries)]

    def raise_if_any(self, filename: str) -> None:
        """Raise ClickFileError with everything collected, when anything was."""
        if self.entries:
            count = len(self.entries)
            raise ClickFileError(f"{filename}: {count} error{'s' if count > 1 else ''}", self.lines())
