"""What a step's results must be: `expect:` of a scenario."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_FORM = re.compile(r"^(<=|>=|==|!=|<|>|contains\s|matches\s)\s*(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Check:
    """One comparison, such as ">= 3", "!= 0", "contains text", "matches REGEX", or a value to be equal to."""

    sign: str
    value: Any
    text: str

    @classmethod
    def parse(cls, written: object) -> Check:
        """From what is in the file. Raises ValueError with the reason."""
        if isinstance(written, bool | int | float):
            return cls("==", written, str(written))
        if not isinstance(written, str):
            raise ValueError(f"{written!r} is nothing to compare with: a number, true, false or text")
        form = _FORM.match(written)
        if form is None:
            return cls("==", _scalar(written), written)
        sign, value = form[1].strip(), form[2]
        if sign in _COMPARISONS and not isinstance(_scalar(value), int | float):
            raise ValueError(f"{written!r}: {value!r} is no number")
        if sign == "matches":
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{written!r} is no regular expression: {error}") from error
        return cls(sign, value if sign in ("contains", "matches") else _scalar(value), written)

    def holds(self, got: Any) -> bool:
        """Whether a result is as expected; None, where there is none, never is."""
        if got is None:
            return False
        if self.sign in _COMPARISONS:
            return isinstance(got, int | float) and _COMPARISONS[self.sign](got, self.value)
        if self.sign == "contains":
            return self.value in str(got)
        if self.sign == "matches":
            return re.search(self.value, str(got)) is not None
        same = got == self.value or str(got).strip() == str(self.value)
        return same if self.sign == "==" else not same


def result_at(results: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path ("bytes_qemu.memory"); None when there is none."""
    found: Any = results
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _scalar(text: str) -> Any:
    word = text.strip()
    if word in ("true", "false"):
        return word == "true"
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return text
