"""Judges XML of somebody who is not trusted by a list of what it may hold: whatever the list does not name is
refused, be it an element, an attribute, a value or text.

`parse` takes no declarations, comments, CDATA or processing instructions, so that nothing is expanded and no
two parsers can read different texts; size, depth and number of elements are bounded. Namespaces are resolved:
a name of the list fits only in the namespace that it says ("{URI}name").
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from xiatb.errors import WireError

MAX_TEXT: Final = 64 << 10
"""Characters of a whole text; the longest that was seen, a cookie with a guest's definition, has 6,000."""
MAX_DEPTH: Final = 12
MAX_ELEMENTS: Final = 1000
_SPACE: Final = " \t\r\n"
Rule = Callable[[str], bool]
"""Whether a value may stand there."""


@dataclass(frozen=True)
class Shape:
    """What an element may be. An attribute is needed unless its name here ends in "?". `text` None: nothing
    but white space. `ordered`: the children are exactly the parts, in their order."""

    attributes: Mapping[str, Rule] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    text: Rule | None = None
    ordered: bool = False


@dataclass(frozen=True)
class Part:
    """A child: between `least` and `most` of this tag and shape; tag "*": any tag without a namespace. Parts
    of one tag are alternatives."""

    tag: str
    shape: Shape
    least: int = 0
    most: int = 1


class ShapeError(WireError):
    """The XML holds something that the list does not name; `depth`: how far below the root."""

    def __init__(self, place: tuple[str, ...], complaint: str) -> None:
        super().__init__(f"{'/'.join(place)}: {complaint}")
        self.depth = len(place)


def same(*values: str) -> Rule:
    """One of these values."""
    return frozenset(values).__contains__


def like(pattern: str) -> Rule:
    """A value that the regular expression describes wholly."""
    compiled = re.compile(pattern, re.ASCII)
    return lambda value: compiled.fullmatch(value) is not None


def up_to(limit: int) -> Rule:
    """A decimal number from 0 to `limit`, without sign or leading zeros."""
    digits = like("0|[1-9][0-9]{0,18}")
    return lambda value: digits(value) and int(value) <= limit


def need(tag: str, attributes: Mapping[str, Rule] | None = None, *parts: Part,
         text: Rule | None = None) -> Part:  # fmt: skip
    """A child that must be there, once."""
    return Part(tag, Shape(attributes or {}, parts, text), 1)


def may(tag: str, attributes: Mapping[str, Rule] | None = None, *parts: Part, text: Rule | None = None,
        most: int = 1) -> Part:  # fmt: skip
    """A child that may be there, up to `most` times."""
    return Part(tag, Shape(attributes or {}, parts, text), 0, most)


def parse(text: str, root: str) -> ET.Element:
    """The document, whose outermost element is `root`; raises WireError."""
    if len(text) > MAX_TEXT:
        raise WireError(f"{len(text)} characters of XML, {MAX_TEXT} at the most")
    if not text.startswith(f"<{root}") or "\0" in text:
        raise WireError(f"no plain <{root}>")
    if "<!" in text or "<?" in text:
        raise WireError("XML with a declaration, a comment, CDATA or a processing instruction")
    parser = ET.XMLParser(target=_Bounded())  # noqa: S314 - without declarations there are no entities
    try:
        parser.feed(text)
        element: ET.Element = parser.close()
    except (ET.ParseError, ValueError) as error:
        raise WireError(f"XML that cannot be read: {error}") from None
    if element.tag != root:
        raise WireError(f"<{_shown(element.tag)}> in place of <{root}>")
    return element


class _Bounded(ET.TreeBuilder):
    """Makes the tree, up to MAX_DEPTH and MAX_ELEMENTS."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._count = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ET.Element:  # type: ignore[override]
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise WireError(f"XML of more than {MAX_ELEMENTS} elements or {MAX_DEPTH} levels")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ET.Element:
        self._depth -= 1
        return super().end(tag)


def judge(element: ET.Element, shape: Shape, above: tuple[str, ...] = ()) -> None:
    """Raise ShapeError, which names element and value, unless the element is of that shape; `above` are the
    names of those that it is in."""
    place = (*above, f"<{_shown(element.tag)}>")
    _judge_attributes(element, shape, place)
    text = element.text or ""
    if shape.text is None and text.strip(_SPACE):
        raise ShapeError(place, f"text {text[:80]!r}")
    if shape.text is not None and not shape.text(text):
        raise ShapeError(place, f"{text[:80]!r} is not what was admitted")
    counts = [0] * len(shape.parts)
    for child in element:
        counts[_fitting(child, shape, counts, place)] += 1
        if child.tail and child.tail.strip(_SPACE):
            raise ShapeError(place, f"text {child.tail[:80]!r}")
    for part, count in zip(shape.parts, counts, strict=True):
        if count < part.least:
            raise ShapeError(place, f"no <{_shown(part.tag)}>")


def _judge_attributes(element: ET.Element, shape: Shape, place: tuple[str, ...]) -> None:
    for name, value in element.attrib.items():
        rule = shape.attributes.get(name) or shape.attributes.get(f"{name}?")
        if rule is None or name.endswith("?"):
            raise ShapeError(place, f"attribute {_shown(name)!r} is not allowed")
        if not rule(value):
            raise ShapeError(place, f"{name} {value[:80]!r} is not what was admitted")
    for name in shape.attributes:
        if not name.endswith("?") and name not in element.attrib:
            raise ShapeError(place, f"no {name}")


def _fitting(child: ET.Element, shape: Shape, counts: list[int], place: tuple[str, ...]) -> int:
    """Which part of `shape` the child is; raises ShapeError, that of the alternative that fits best."""
    refusals: list[ShapeError] = []
    tag = child.tag
    for number, part in enumerate(shape.parts):
        if shape.ordered and number != sum(counts):
            continue
        if part.tag != tag and not (part.tag == "*" and not tag.startswith("{")):
            continue
        if counts[number] >= part.most:
            refusals.append(ShapeError(place, f"another <{_shown(tag)}>"))
            continue
        try:
            judge(child, part.shape, place)
        except ShapeError as error:
            refusals.append(error)
        else:
            return number
    if not refusals:
        raise ShapeError(place, f"<{_shown(tag)}> is not allowed")
    raise max(refusals, key=lambda refusal: refusal.depth)


def _shown(name: str) -> str:
    """A name for messages: bounded, of its namespace only the last word."""
    space, found, local = name.rpartition("}")
    word = space.lstrip("{").rstrip("/0123456789.").rpartition("/")[2]
    return f"{word[:20]}:{local[:40]}" if found else local[:40]
