"""pydantic's complaints about a file in this project's words: at the place in the file, with a hint."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from xiatb.lab.source import Place, Source, did_you_mean


class Words(NamedTuple):
    """What a kind of file adds to messages.

    missing: hints by (first key of the place or "", key that is missing); ranges: in words, by key; told:
    whether what is no mapping at a place has been complained of in another way."""

    missing: Mapping[tuple[str, str], str] = {}
    ranges: Mapping[str, str] = {}
    told: Callable[[Place], bool] = lambda place: False


def report(source: Source, root: type[BaseModel], error: Mapping[str, Any], words: Words) -> None:
    """Add one of the errors of a ValidationError of the model `root` to the problems of `source`."""
    place: Place = tuple(part for part in error["loc"] if part != "[key]")
    kind, message, value = error["type"], str(error["msg"]), error.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(root, place[:-1])
        source.add(place, "unknown key", did_you_mean(place[-1], known), at_key=True)
    elif kind == "missing":
        hint = words.missing.get((str(place[0]) if len(place) > 1 else "", str(place[-1])), "")
        source.add(place[:-1], f"{place[-1]} is missing", hint, at_key=True)
    elif kind == "name":
        source.add(place, message, at_key="[key]" in error["loc"])
    elif kind == "literal_error":
        known = [word.strip(" '") for word in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        source.add(place, f"{value!r} is not one of {', '.join(known)}", did_you_mean(value, known))
    elif kind in ("greater_than_equal", "less_than_equal"):
        allowed = words.ranges.get(str(place[-1]), "")
        source.add(place, f"{value} is out of range{': ' if allowed else ''}{allowed}")
    elif kind in ("model_type", "dict_type"):
        if not words.told(place):
            source.add(place, f"{value!r} is not a mapping", "write KEY: VALUE lines below it")
    else:
        source.add(place, f"{message[:1].lower()}{message[1:]}")


def _known_keys(root: type[BaseModel], place: Place) -> list[str]:
    model = _model_at(root, place)
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(root: type[BaseModel], place: Place) -> type[BaseModel] | None:
    current: Any = root
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            fields = {field.alias or name: field for name, field in current.model_fields.items()}
            current = fields[str(part)].annotation if str(part) in fields else None
        elif get_origin(current) in (dict, list):
            current = get_args(current)[-1]
        if get_origin(current) in (Union, types.UnionType):
            current = next(one for one in get_args(current) if one is not type(None))
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None
