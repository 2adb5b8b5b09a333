"""Configuration strings: splitting into arguments, variables, and the types of single arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from xiatb.click.errors import ConfigError, Location
from xiatb.click.lexer import skip_quoted
from xiatb.errors import WireError
from xiatb.wire.dag import DAG

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|([A-Za-z0-9_]+))")
_KEYWORD = re.compile(r"([A-Z_][A-Z0-9_]*)(?:\s+(.*))?\Z", re.S)
_SI = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000}
_BANDWIDTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMG]?)(B/s|Bps|b/s|bps|bit/s|bit)?\Z")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|sec|ms|msec|us|usec|ns|m|min|h|)\Z")
_SECONDS = {
    "": 1.0, "s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6, "usec": 1e-6, "ns": 1e-9,
    "m": 60.0, "min": 60.0, "h": 3600.0,
}  # fmt: skip


class Argument(NamedTuple):
    """One argument of a configuration string and the place where it starts."""

    text: str
    where: Location


def _advance(where: Location, text: str) -> Location:
    """The place that lies behind `text`, which starts at `where`."""
    lines = text.count("\n")
    if not lines:
        return Location(where.file, where.line, where.column + len(text))
    return Location(where.file, where.line + lines, len(text) - text.rfind("\n"))


def split(text: str, where: Location) -> list[Argument]:
    """The comma-separated arguments of a configuration whose first character is at `where`.

    Comments are removed, white space around arguments too; commas inside quotes, parentheses, brackets
    and braces do not separate. An empty configuration has no arguments.
    """
    pieces: list[Argument] = []
    start = at = depth = 0
    while at <= len(text):
        if at == len(text) or (text[at] == "," and depth == 0):
            pieces.append(_trim(text, start, at, where))
            at += 1
            start = at
            continue
        behind = skip_quoted(text, at)
        if behind > at:
            at = behind
            continue
        depth += (text[at] in "([{") - (text[at] in ")]}")
        at += 1
    if len(pieces) == 1 and not pieces[0].text:
        return []
    if not pieces[-1].text:
        pieces.pop()
    return pieces


def _trim(text: str, start: int, end: int, where: Location) -> Argument:
    """The argument between two offsets, without comments and outer white space."""
    kept: list[str] = []
    first = -1
    at = start
    while at < end:
        behind = skip_quoted(text, at)
        if text.startswith(("//", "/*"), at):
            kept.append(" ")
            at = max(behind, at + 1)
            continue
        stop = max(behind, at + 1)
        if first < 0 and not text[at].isspace():
            first = at
        kept.append(text[at:stop])
        at = stop
    return Argument("".join(kept).strip(), _advance(where, text[: first if first >= 0 else start]))


def substitute(text: str, variables: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replace `$name` and `${name}` outside single quotes; gives the text and the names that are not
    known.
    """
    unknown: list[str] = []

    def value(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if name in variables:
            return variables[name]
        unknown.append(name)
        return found.group()

    pieces = re.split(r"('[^']*')", text)
    done = [piece if piece.startswith("'") else _VARIABLE.sub(value, piece) for piece in pieces]
    return "".join(done), unknown


def unquote(text: str) -> str:
    """The value of an argument: quotes removed, backslash sequences of double quotes and `\\<hex>`
    resolved.
    """
    out: list[str] = []
    at = 0
    while at < len(text):
        behind = skip_quoted(text, at)
        piece = text[at : max(behind, at + 1)]
        if behind == at:
            out.append(piece)
        elif piece.startswith("'"):
            out.append(piece[1:-1])
        elif piece.startswith('"'):
            out.append(_unescape(piece[1:-1]))
        elif piece.startswith("\\<"):
            digits = "".join(piece[2:-1].split())
            try:
                out.append(bytes.fromhex(digits).decode("latin-1"))
            except ValueError:
                raise ConfigError(f"'{piece}' is not hexadecimal data") from None
        at += len(piece)
    return "".join(out)


def _unescape(text: str) -> str:
    simple = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}
    return re.sub(r"\\(.)", lambda found: simple.get(found.group(1), found.group(1)), text, flags=re.S)


def quote(text: str) -> str:
    """Write `text` so that `unquote` gives it back, quoted only where it must be."""
    if text and re.fullmatch(r"[A-Za-z0-9_@./:%+\-]+", text) and "//" not in text:
        return text
    body = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return '"' + body.replace("\r", "\\r").replace("$", "\\$") + '"'


def to_text(text: str) -> str:
    """Any text."""
    return unquote(text)


def to_int(text: str) -> int:
    """A whole number, decimal or 0x hexadecimal, that may be negative."""
    try:
        return int(unquote(text), 0)
    except ValueError:
        raise ConfigError(f"'{text}' is not a whole number") from None


def to_count(text: str) -> int:
    """A whole number that is not negative."""
    number = to_int(text)
    if number < 0:
        raise ConfigError(f"'{text}' is negative")
    return number


def to_positive(text: str) -> int:
    """A whole number above 0."""
    number = to_int(text)
    if number <= 0:
        raise ConfigError(f"'{text}' is not above 0")
    return number


def to_bool(text: str) -> bool:
    """true/false, yes/no, on/off, 1/0."""
    word = unquote(text).lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ConfigError(f"'{text}' is not true or false")


def to_probability(text: str) -> float:
    """A number from 0 to 1, or a percentage."""
    word = unquote(text).strip()
    try:
        number = float(word[:-1]) / 100 if word.endswith("%") else float(word)
    except ValueError:
        raise ConfigError(f"'{text}' is not a probability") from None
    if not 0 <= number <= 1:
        raise ConfigError(f"'{text}' is not between 0 and 1")
    return number


def to_seconds(text: str) -> float:
    """A duration, `0.005`, `5ms`, `2s`, `1min`; a bare number is seconds."""
    found = _DURATION.match(unquote(text).strip())
    if not found:
        raise ConfigError(f"'{text}' is not a duration (for example 5ms)")
    return float(found.group(1)) * _SECONDS[found.group(2)]


def to_byte_rate(text: str) -> float:
    """A bandwidth in octets a second: `100Mbps`, `1GB/s`, `12500000`; a bare number is octets a second
    (as in Click).
    """
    found = _BANDWIDTH.match(unquote(text).strip())
    if not found:
        raise ConfigError(f"'{text}' is not a bandwidth (for example 100Mbps or 12.5MB/s)")
    rate = float(found.group(1)) * _SI[found.group(2)]
    if found.group(3) in ("b/s", "bps", "bit/s", "bit"):
        rate /= 8
    if rate <= 0:
        raise ConfigError(f"'{text}' is not above 0")
    return rate


def to_mac(text: str) -> bytes:
    """An Ethernet address, six octets."""
    parts = unquote(text).split(":")
    try:
        address = bytes(int(part, 16) for part in parts)
    except ValueError:
        raise ConfigError(f"'{text}' is not an Ethernet address") from None
    if len(address) != 6:
        raise ConfigError(f"'{text}' is not an Ethernet address")
    return address


def to_ip_prefix(text: str) -> tuple[bytes, int]:
    """An IPv4 address of 4 octets and its prefix length: `192.0.2.1/24`; without a length it is 32."""
    address, slash, length = unquote(text).partition("/")
    parts = address.split(".")
    octets = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 4]
    bits = int(length) if length.isascii() and length.isdigit() and len(length) < 3 else -1
    if len(parts) != 4 or len(octets) != 4 or max(octets) > 255 or (slash and not 0 <= bits <= 32):
        raise ConfigError(f"'{text}' is not an IPv4 address with or without a prefix length")
    return bytes(octets), bits if slash else 32


def to_dag(text: str) -> DAG:
    """A DAG in any of its text forms, in quotes when it holds commas."""
    try:
        return DAG.parse(unquote(text))
    except WireError as error:
        raise ConfigError(error.message) from None


class Arg(NamedTuple):
    """One argument that an element class takes.

    name: its keyword (upper case); given as `NAME value`, or by position when `positional`.
    parse: text -> value; raises ConfigError.
    default: value when it is not given; `REQUIRED` when it must be given (a `rest` then at least once).
    rest: takes all remaining positional arguments, as a list.
    """

    name: str
    parse: Callable[[str], Any]
    doc: str
    default: Any = None
    positional: bool = True
    rest: bool = False


REQUIRED: Any = object()


def bind(specs: tuple[Arg, ...], texts: list[str], owner: str) -> tuple[dict[str, Any], list[ConfigError]]:
    """Match argument texts with what class `owner` takes: (name in lower case -> value, all that is wrong).

    Arguments may be unknown, missing, surplus, given twice or malformed.
    """
    waiting = [spec for spec in specs if spec.positional]
    values: dict[str, Any] = {}
    errors: list[ConfigError] = []
    given: set[str] = set()
    for index, text in enumerate(texts):
        spec, value_text = _spec_for(specs, waiting, text)
        if spec is None:
            errors.append(ConfigError(_surplus(specs, text, owner), index))
            continue
        if spec.name in given and not spec.rest:
            errors.append(ConfigError(f"{spec.name} is given twice", index))
            continue
        given.add(spec.name)
        if spec in waiting and not spec.rest:
            waiting.remove(spec)
        try:
            value = spec.parse(value_text)
        except ConfigError as error:
            errors.append(ConfigError(f"{spec.name}: {error.message}", index))
            continue
        if spec.rest:
            values.setdefault(spec.name.lower(), []).append(value)
        else:
            values[spec.name.lower()] = value
    for spec in specs:
        if spec.name not in given:
            if spec.default is REQUIRED:
                errors.append(ConfigError(f"argument {spec.name} is missing ({spec.doc})"))
            values[spec.name.lower()] = spec.default if not spec.rest else list(spec.default or [])
    return values, errors


def _spec_for(specs: tuple[Arg, ...], waiting: list[Arg], text: str) -> tuple[Arg | None, str]:
    """The argument that a text is for, by keyword or by place, and the text of its value."""
    found = _KEYWORD.match(text)
    if found is not None and found.group(2) is not None:
        for spec in specs:
            if spec.name == found.group(1):
                return spec, found.group(2)
    return (waiting[0], text) if waiting else (None, text)


def _surplus(specs: tuple[Arg, ...], text: str, owner: str) -> str:
    """What is wrong with an argument that nothing wants."""
    found = _KEYWORD.match(text)
    takes = (
        f"{owner} takes {', '.join(spec.name for spec in specs)}" if specs else f"{owner} takes no arguments"
    )
    if found is not None and found.group(2) is not None:
        return f"there is no argument {found.group(1)} ({takes})"
    return f"'{text}' is one argument too many ({takes})"
