"""YAML with positions: plain data, and for every place in it the line and column it was written at.

A subset of YAML on purpose: plain scalars are numbers, true/false, null or text (so that `on:` and `no` stay
text), keys are always text, no tags, no merge keys. Sizes are bounded, so hostile files end early.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from xiatb.errors import InvalidFileError

Place = tuple[str | int, ...]
"""Keys and list indices from the top of the file to a value."""

MAX_BYTES = 4 * 2**20
_MAX_VALUES = 200_000
_INT = re.compile(r"^[+-]?\d{1,18}$")
_FLOAT = re.compile(r"^[+-]?(\d+\.\d*|\.\d+)$")


@dataclass(frozen=True, order=True)
class Problem:
    """One error of a file: 1-based line and column, what is wrong, and perhaps what to do."""

    line: int
    column: int
    message: str
    hint: str = ""

    def show(self, filename: str) -> str:
        """`file:line:col: message`, the hint on a second, indented line."""
        text = f"{filename}:{self.line}:{self.column}: {self.message}"
        return f"{text}\n    hint: {self.hint}" if self.hint else text


@dataclass
class Source:
    """A parsed file: `data` is plain dicts, lists and scalars."""

    filename: str
    data: Any = None
    values: dict[Place, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Place, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, place: Place, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Report a problem at a place (or the nearest enclosing place that was really written)."""
        table = self.keys if at_key else self.values
        cut = place
        while cut and cut not in table:
            cut = cut[:-1]
        line, column = table.get(cut) or self.values.get(cut) or (1, 1)
        where = show_place(place)
        problem = Problem(line, column, f"{where}: {message}" if where else message, hint)
        if problem not in self.problems:
            self.problems.append(problem)

    def fail(self) -> None:
        """Raise InvalidFileError with every problem, in file order; return when there is none."""
        if not self.problems:
            return
        shown = [problem.show(self.filename) for problem in sorted(self.problems)]
        count = len(shown)
        raise InvalidFileError(f"{self.filename}: {count} error{'s' if count > 1 else ''}", shown)


def read(path: Path) -> Source:
    """Parse a file. Raises InvalidFileError when it cannot be read or is no YAML; duplicate keys and the
    like are left in `problems`."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidFileError(f"{path}: {error.strerror}", hint="name one that can be read") from error
    if len(raw) > MAX_BYTES:
        raise InvalidFileError(f"{path}: larger than {MAX_BYTES // 2**20} MiB")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidFileError(f"{path}: not UTF-8 text (byte {error.start})") from error
    return parse(text, str(path))


def parse(text: str, filename: str) -> Source:
    """Parse YAML text; see `read`."""
    source = Source(filename)
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = " ".join(filter(None, (error.context, error.problem)))
        raise InvalidFileError(
            f"{filename}: not YAML", [Problem(line, column, f"not YAML: {what}").show(filename)]
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidFileError(f"{filename}: not YAML: {error}") from error
    if root is not None:
        source.data = _Builder(source).build(root, ())
    return source


class _Builder:
    """Turns yaml's nodes into plain data and notes where each came from."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.count = 0

    def build(self, node: yaml.Node, place: Place) -> Any:
        self.count += 1
        if self.count > _MAX_VALUES or len(place) > 20:
            raise InvalidFileError(f"{self.source.filename}: too many or too deeply nested values")
        mark = node.start_mark
        self.source.values[place] = (mark.line + 1, mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*place, index)) for index, child in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            here = (*place, key)
            mark = key_node.start_mark
            if key in result:
                self.source.problems.append(_twice(here, mark, self.source.keys[here]))
                continue
            self.source.keys[here] = (mark.line + 1, mark.column + 1)
            result[key] = self.build(value_node, here)
        return result


def _twice(place: Place, mark: yaml.Mark, first: tuple[int, int]) -> Problem:
    hint = f"the first is on line {first[0]}; rename or remove one"
    return Problem(mark.line + 1, mark.column + 1, f"{show_place(place)}: name used twice", hint)


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style is not None:
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INT.match(text):
        return int(text)
    return float(text) if _FLOAT.match(text) else text


def show_place(place: Iterable[str | int]) -> str:
    """("links", 3, "delay") -> "links[3].delay"."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A hint: the known word most like this one, or the list of known words when it is short."""
    names = sorted(known)
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 14 else ""
