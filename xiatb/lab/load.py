"""From a topology file to a checked `TopologyFile`, or to all of its errors at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from xiatb.errors import InvalidFileError
from xiatb.lab.check import check
from xiatb.lab.linkparams import contradictions, layered
from xiatb.lab.source import Place, Source, did_you_mean, parse, read
from xiatb.lab.topology import MAX_MTU, MIN_MTU, TopologyFile, normalise


@dataclass(frozen=True)
class Topology:
    """A valid file and where it was read from (relative paths in it count from there)."""

    file: TopologyFile
    path: Path


def load(path: Path) -> Topology:
    """Read and check a topology. Raises InvalidFileError whose `problems` are all errors with positions."""
    return Topology(_validate(read(path)), path.resolve())


def loads(text: str, filename: str = "topology.yaml") -> TopologyFile:
    """The same from text."""
    return _validate(parse(text, filename))


def find(directory: Path) -> Path:
    """The single *.xia.yaml in a directory. Raises InvalidFileError when there is none or more than one."""
    found = sorted(directory.glob("*.xia.yaml"))
    if len(found) == 1:
        return found[0]
    what = "no *.xia.yaml" if not found else f"{len(found)} files *.xia.yaml"
    raise InvalidFileError(f"{what} in {directory}", hint="name the topology: xiatb up FILE")


def _validate(source: Source) -> TopologyFile:
    if source.data is None:
        source.add((), "the file is empty", "write name:, nodes: and links:; docs/topology.md has examples")
        source.fail()
    data = normalise(source.data)
    model: TopologyFile | None = None
    try:
        model = TopologyFile.model_validate(data)
    except ValidationError as failure:
        for error in failure.errors(include_url=False):
            _report(source, data, dict(error))
    check(source, data)
    if model is not None:
        _check_values(source, model)
    source.fail()
    assert model is not None
    return model


def _report(source: Source, data: Any, error: dict[str, Any]) -> None:
    place: Place = tuple(part for part in error["loc"] if part != "[key]")
    kind, message, value = error["type"], str(error["msg"]), error.get("input")
    if kind == "extra_forbidden":
        source.add(place, "unknown key", did_you_mean(place[-1], _known_keys(place[:-1])), at_key=True)
    elif kind == "missing":
        source.add(place[:-1], f"{place[-1]} is missing", _missing_hint(place), at_key=True)
    elif kind == "name":
        source.add(place, message, at_key="[key]" in error["loc"])
    elif kind == "literal_error":
        known = [word.strip(" '") for word in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        source.add(place, f"{value!r} is not one of {', '.join(known)}", did_you_mean(value, known))
    elif kind in ("greater_than_equal", "less_than_equal"):
        low_high = _range(place)
        source.add(place, f"{value} is out of range{low_high}")
    elif kind in ("model_type", "dict_type"):
        if not (len(place) == 2 and place[0] == "links"):
            source.add(place, f"{value!r} is not a mapping", "write KEY: VALUE lines below it")
    else:
        source.add(place, f"{message[:1].lower()}{message[1:]}")


def _missing_hint(place: Place) -> str:
    if place[-1] == "kind":
        return (
            "kind: host, router or hypervisor" if place[0] == "nodes" else "kind: echo, responder or writer"
        )
    return {"on": "on: NAME of the hypervisor it starts on", "name": "name: of the lab"}.get(
        str(place[-1]), ""
    )


def _known_keys(place: Place) -> list[str]:
    model = _model_at(place)
    return list(model.model_fields) if model is not None else []


def _model_at(place: Place) -> type[BaseModel] | None:
    current: Any = TopologyFile
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field is not None else None
        elif get_origin(current) in (dict, list):
            current = get_args(current)[-1]
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _range(place: Place) -> str:
    ranges = {"mtu": f": {MIN_MTU} to {MAX_MTU}", "seed": ": 0 to 2^63-1", "vcpus": ": 1 to 16"}
    return ranges.get(str(place[-1]), "")


def _check_values(source: Source, model: TopologyFile) -> None:
    """Values that are each in range but not together."""
    for index, link in enumerate(model.links):
        told = set()
        for direction in ("forward", "backward"):
            part = getattr(link, direction)
            for problem in contradictions(layered(model.defaults.link, link, part)):
                name, _, reason = problem.partition(": ")
                key = (direction, name) if getattr(part, name) is not None else (name,)
                if (key, reason) not in told:
                    source.add(("links", index, *key), reason)
                told.add((key, reason))
