"""From a topology file to a checked `TopologyFile`, or to all of its errors at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from xiatb.errors import InvalidFileError
from xiatb.lab.check import check
from xiatb.lab.linkparams import contradictions, layered
from xiatb.lab.problems import Words, report
from xiatb.lab.source import Source, parse, read
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
            report(source, TopologyFile, dict(error), _WORDS)
    check(source, data)
    if model is not None:
        _check_values(source, model)
    source.fail()
    assert model is not None
    return model


_MISSING = {
    ("nodes", "kind"): "kind: host, router or hypervisor",
    ("guests", "kind"): "kind: echo, responder or writer",
    ("guests", "on"): "on: NAME of the hypervisor it starts on",
    ("", "name"): "name: of the lab",
}
_RANGES = {"mtu": f"{MIN_MTU} to {MAX_MTU}", "seed": "0 to 2^63-1", "vcpus": "1 to 16"}
_WORDS = Words(_MISSING, _RANGES, told=lambda place: len(place) == 2 and place[0] == "links")


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
