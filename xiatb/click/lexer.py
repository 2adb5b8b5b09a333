"""Tokens of the Click language.

A configuration string, `( ... )`, is one token: its raw text is handed to the element class, which
alone knows what it means. Inside it parentheses nest, quotes and comments are honoured.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from xiatb.click.errors import Location, Problems

IDENT = "identifier"
VARIABLE = "variable"
CONFIG = "configuration"
EOF = "end of file"
PUNCTUATION = ("->", "::", "||", "=>", ";", ",", "[", "]", "{", "}", "|")

_IDENT = re.compile(r"(?:[A-Za-z0-9_@]|/(?![/*]))+")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))")


class Token(NamedTuple):
    """One token. `text` of a configuration is what stands between the parentheses."""

    kind: str
    text: str
    where: Location

    def describe(self) -> str:
        """How an error message calls it."""
        if self.kind == EOF:
            return EOF
        if self.kind == CONFIG:
            return "'('"
        return f"'{self.text}'"


class _Places:
    """Turns offsets into lines and columns."""

    def __init__(self, text: str, filename: str) -> None:
        self.filename = filename
        self.starts = [0] + [found.end() for found in re.finditer("\n", text)]

    def at(self, offset: int) -> Location:
        low, high = 0, len(self.starts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.starts[middle] <= offset:
                low = middle
            else:
                high = middle - 1
        return Location(self.filename, low + 1, offset - self.starts[low] + 1)


def tokenize(text: str, filename: str, problems: Problems) -> list[Token]:
    """All tokens of `text`, ending with one of kind EOF.

    Characters that belong to no token are reported into `problems` and skipped.
    """
    places = _Places(text, filename)
    tokens: list[Token] = []
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char in " \t\r\n\f\v":
            at += 1
        elif text.startswith("//", at) or (char == "#" and (at == 0 or text[at - 1] == "\n")):
            newline = text.find("\n", at)
            at = end if newline < 0 else newline
        elif text.startswith("/*", at):
            close = text.find("*/", at + 2)
            if close < 0:
                problems.add(places.at(at), "this comment is never closed (expected '*/')")
            at = end if close < 0 else close + 2
        elif char == "(":
            close = config_end(text, at + 1)
            if close < 0:
                problems.add(places.at(at), "this configuration is never closed (expected ')')")
                close = _give_up(text, at)
            tokens.append(Token(CONFIG, text[at + 1 : close], places.at(at)))
            at = close + 1
        else:
            at = _simple(text, at, places, tokens, problems)
    tokens.append(Token(EOF, "", places.at(end)))
    return tokens


def _give_up(text: str, at: int) -> int:
    """Where a configuration that is never closed is taken to end: one before the next `;`."""
    stop = text.find(";", at)
    return len(text) if stop < 0 else stop - 1


def _simple(text: str, at: int, places: _Places, tokens: list[Token], problems: Problems) -> int:
    """Take one identifier, variable or punctuation at offset `at`; give the offset behind it."""
    found = _IDENT.match(text, at)
    if found:
        tokens.append(Token(IDENT, found.group(), places.at(at)))
        return found.end()
    found = _VARIABLE.match(text, at)
    if found:
        tokens.append(Token(VARIABLE, found.group(1) or found.group(2), places.at(at)))
        return found.end()
    for mark in PUNCTUATION:
        if text.startswith(mark, at):
            tokens.append(Token(mark, mark, places.at(at)))
            return at + len(mark)
    problems.add(places.at(at), f"unexpected character {text[at]!r}")
    return at + 1


def skip_quoted(text: str, at: int) -> int:
    """Offset behind the quoted string or comment that starts at `at`; `at` itself when none starts there."""
    char = text[at]
    if char == "'":
        close = text.find("'", at + 1)
        return len(text) if close < 0 else close + 1
    if char == '"':
        at += 1
        while at < len(text) and text[at] != '"':
            at += 2 if text[at] == "\\" else 1
        return min(at + 1, len(text))
    if text.startswith("\\<", at):
        close = text.find(">", at)
        return len(text) if close < 0 else close + 1
    if text.startswith("//", at):
        newline = text.find("\n", at)
        return len(text) if newline < 0 else newline
    if text.startswith("/*", at):
        close = text.find("*/", at + 2)
        return len(text) if close < 0 else close + 2
    return at


def config_end(text: str, at: int) -> int:
    """Offset of the parenthesis that closes a configuration whose text starts at `at`; -1 when none does."""
    depth = 1
    while at < len(text):
        behind = skip_quoted(text, at)
        if behind > at:
            at = behind
            continue
        if text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return -1
