"""Variables of a scenario: `${name}` in any text of its steps, changed by `--set name=value`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from xiatb.errors import InvalidFileError, UsageError
from xiatb.lab.source import Place, Source, did_you_mean, parse

_USE = re.compile(r"\$(?:\{([^}]*)\}|(\$)|)")
_PLACES = ("topology", "steps")


def parse_settings(words: tuple[str, ...], known: Mapping[str, Any]) -> dict[str, Any]:
    """`("delay=5ms",)` -> {"delay": "5ms"}; values are read as in the file. Raises UsageError."""
    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise UsageError(f"--set {word}: not NAME=VALUE")
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"--set {word}: the scenario has no variable {name!r}", hint=hint)
        try:
            data = parse(value, "--set").data
        except InvalidFileError:
            data = None  # no YAML: taken as it is
        found[name] = value if isinstance(data, dict | list | None) else data
    return found


def substitute(source: Source, values: Mapping[str, Any]) -> Any:
    """The file's data with variables put in; unknown ones become problems of `source`. A text that is one
    variable and nothing else takes its value's type; `$$` is a dollar sign."""
    data = dict(source.data)
    for key in _PLACES:
        if key in data:
            data[key] = _put_in(source, values, (key,), data[key])
    return data


def _put_in(source: Source, values: Mapping[str, Any], place: Place, data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _put_in(source, values, (*place, key), value) for key, value in data.items()}
    if isinstance(data, list):
        return [_put_in(source, values, (*place, at), value) for at, value in enumerate(data)]
    if not isinstance(data, str) or "$" not in data:
        return data

    def replace(match: re.Match[str]) -> str:
        if match[2]:
            return "$"
        if match[1] is None:
            source.add(place, "a lone $", "a variable is ${name}, a dollar sign $$")
            return "$"
        if match[1] not in values:
            source.add(place, f"no variable {match[1]!r}", did_you_mean(match[1], values) or "see variables:")
            return match[0]
        return str(values[match[1]])

    whole = re.fullmatch(r"\$\{([^}]*)\}", data)
    if whole and whole[1] in values:
        return values[whole[1]]
    return _USE.sub(replace, data)
