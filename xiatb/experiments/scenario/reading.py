"""From a scenario file to a checked `Scenario`, or to all errors of it and of its topology at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xiatb.errors import InvalidFileError, UsageError, XiatbError
from xiatb.experiments.scenario.schema import ACTIONS, RESULTS, ScenarioFile, Step
from xiatb.experiments.scenario.variables import parse_settings, substitute
from xiatb.lab.capture import split_target
from xiatb.lab.linkops import direction, find_link
from xiatb.lab.load import Topology, load
from xiatb.lab.plan import Plan
from xiatb.lab.planner import make_plan
from xiatb.lab.problems import Words, report
from xiatb.lab.source import Place, Source, did_you_mean, read
from xiatb.wire.dag import DAG

START, END = "start", "end"
_MISSING = {
    ("", "topology"): "topology: FILE, as seen from this file",
    ("", "steps"): "steps: a list of what to do",
}
_RANGES = {
    "count": "1 to 1000000", "seed": "0 to 2^63-1", "repeat": "1 to 1000", "size": "0 to 60000",
    "snaplen": "64 to 262144",
}  # fmt: skip
_WORDS = Words(_MISSING, _RANGES)


@dataclass(frozen=True)
class Scenario:
    """A valid file, its topology, and the values its variables have."""

    file: ScenarioFile
    path: Path
    topology: Topology
    variables: dict[str, Any]
    names: tuple[str, ...]
    """of the steps; those without one are called step1, step2, ... by their place"""

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.file.name or self.path.stem

    def plan(
        self, run: int, *, lab: str | None = None, seed: int | None = None, data_plane: str | None = None
    ) -> Plan:
        """The lab of the run number `run` (from 0), whose seed is the first one's plus `run`. Arguments that
        are not None count more than the files."""
        first = next(one for one in (seed, self.file.seed, self.topology.file.seed) if one is not None)
        plane = data_plane or self.file.data_plane
        return make_plan(self.topology, lab=lab, seed=(first + run) % 2**63, data_plane=plane)


def read_scenario(path: Path, settings: tuple[str, ...] = ()) -> Scenario:
    """Read and check; `settings` are NAME=VALUE. Raises InvalidFileError whose `problems` are all errors with
    positions, UsageError for the settings."""
    source = read(path)
    if not isinstance(source.data, dict):
        source.add((), "not a scenario", "write topology: and steps:; docs/scenarios.md has examples")
        source.fail()
    written = source.data.get("variables")
    known = written if isinstance(written, dict) else {}
    values = {**known, **parse_settings(settings, known)}
    data = substitute(source, values)
    model = _validate(source, data)
    topology = _topology(source, path, data.get("topology"))
    names = _names(source, data)
    steps = _valid_steps(data)
    for number, step in steps.items():
        _check_step(source, number, step, names, steps)
    if topology is not None:
        _Members(source, make_plan(topology)).check(steps)
    source.fail()
    assert model is not None and topology is not None
    return Scenario(model, path.resolve(), topology, values, tuple(names))


def _validate(source: Source, data: Any) -> ScenarioFile | None:
    if data.get("variables", {}) is None:
        data.pop("variables")
    try:
        return ScenarioFile.model_validate(data)
    except ValidationError as failure:
        for error in failure.errors(include_url=False):
            report(source, ScenarioFile, dict(error), _WORDS)
    return None


def _valid_steps(data: dict[str, Any]) -> dict[int, Step]:
    """The steps that fit the schema, by their place, so that errors of some do not hide those of others."""
    written, found = data.get("steps"), {}
    for number, step in enumerate(written if isinstance(written, list) else []):
        with contextlib.suppress(ValidationError):
            found[number] = Step.model_validate(step)
    return found


def _topology(source: Source, path: Path, text: object) -> Topology | None:
    if not isinstance(text, str):
        return None
    try:
        return load(path.parent / text)
    except InvalidFileError as error:
        source.add(("topology",), error.message, "; ".join(error.problems) or error.hint)
    return None


def _names(source: Source, data: dict[str, Any]) -> list[str]:
    steps = data.get("steps")
    found: list[str] = []
    for number, step in enumerate(steps if isinstance(steps, list) else []):
        name = step.get("name") if isinstance(step, dict) else None
        name = name if isinstance(name, str) else f"step{number + 1}"
        if name in found:
            source.add(("steps", number, "name"), f"{name!r} is used twice", "steps are told apart by name")
        found.append(name)
    return found


def _check_step(source: Source, number: int, step: Step, names: list[str], steps: dict[int, Step]) -> None:
    here: Place = ("steps", number)
    chosen = [name for name in ACTIONS if getattr(step, name) is not None]
    if len(chosen) != 1:
        what = "nothing to do" if not chosen else f"{' and '.join(chosen)} in one step"
        source.add(here, what, f"one of {', '.join(ACTIONS)}")
        return
    if step.at is not None and step.after is not None:
        source.add((*here, "after"), "at and after in one step", "keep one; plus: DURATION adds to either")
    if step.after is not None:
        _check_after(source, (*here, "after"), step.after, names[:number], steps)
    if chosen[0] == "capture_stop":
        captures = [names[at] for at, one in steps.items() if one.capture is not None]
        if step.capture_stop not in captures:
            hint = did_you_mean(step.capture_stop, captures) or "it is the name of a step with capture:"
            source.add((*here, "capture_stop"), f"no capture is called {step.capture_stop!r}", hint)
    known = (*RESULTS.get(chosen[0], ()), "seconds")
    for key in step.expect if chosen[0] in RESULTS else ():
        if key not in known:
            hint = did_you_mean(key, known)
            source.add((*here, "expect", key), f"{chosen[0]} gives no {key!r}", hint, at_key=True)


def _check_after(source: Source, place: Place, text: str, earlier: list[str], steps: dict[int, Step]) -> None:
    name, _, event = text.partition("/")
    if name not in earlier:
        source.add(place, f"no earlier step is called {name!r}", did_you_mean(name, earlier))
        return
    step = steps.get(earlier.index(name))
    if step is None:
        return
    if event not in ("", START, END) and step.migrate is None:
        hint = "its events: start and end (of a migration its phases, too)"
        source.add(place, f"{name} has no event {event!r}", hint)
    if event in ("", END) and step.exec is not None and step.exec.background:
        source.add(place, f"{name} runs until the end of the scenario", f"after: {name}/start")


class _Members:
    """Checks that nodes, links and guests of the steps are in the topology."""

    def __init__(self, source: Source, plan: Plan) -> None:
        self._source = source
        self._plan = plan
        self._guests = [guest.name for guest in plan.guests]
        self._nodes = [node.name for node in plan.nodes]

    def check(self, steps: dict[int, Step]) -> None:
        for number, step in steps.items():
            self._step(("steps", number), step)

    def _step(self, here: Place, step: Step) -> None:
        for name in ("link_down", "link_up"):
            if (pair := getattr(step, name)) is not None:
                self._try((*here, name), partial(find_link, self._plan, *pair))
        if step.link_set is not None:
            self._try((*here, "link_set", "link"), partial(find_link, self._plan, *step.link_set.link))
            self._try((*here, "link_set", "from"), partial(self._direction, step.link_set))
        if step.ping is not None:
            self._member((*here, "ping", "from"), step.ping.source, self._nodes)
            self._target((*here, "ping", "to"), step.ping.to)
        if step.exec is not None:
            self._member((*here, "exec", "on"), step.exec.on, self._nodes + self._guests)
        if (capture := step.capture) is not None:
            self._try((*here, "capture", "on"), lambda: split_target(self._plan, capture.on))
            if capture.on in self._nodes and capture.port is not None:
                target = f"{capture.on}:{capture.port}"
                self._try((*here, "capture", "port"), lambda: split_target(self._plan, target))
        if step.migrate is not None:
            self._migration((*here, "migrate"), step.migrate)

    def _direction(self, change: Any) -> None:
        if change.source is not None:
            direction(find_link(self._plan, *change.link), change.source)

    def _try(self, place: Place, act: Callable[[], object]) -> None:
        try:
            act()
        except UsageError as error:
            self._source.add(place, error.message, error.hint)

    def _member(self, place: Place, name: str, known: list[str]) -> None:
        if name not in known:
            self._source.add(place, f"there is no {name!r} in {self._plan.lab}", did_you_mean(name, known))

    def _target(self, place: Place, text: str) -> None:
        if text.startswith(("RE ", "DAG ", "http://")):
            try:
                DAG.parse(text)
            except XiatbError as error:
                self._source.add(place, f"not a DAG: {error.message}")
            return
        known = [*self._nodes, *self._guests, *self._plan.names]
        if text not in known and f"{text.lower()}.{self._plan.lab}.xia" not in known:
            self._source.add(place, f"no node, guest or name {text!r}", did_you_mean(text, known))

    def _migration(self, place: Place, parameters: dict[str, Any]) -> None:
        hypervisors = [node.name for node in self._plan.kind("hypervisor")]
        for key, known in (("guest", self._guests), ("to", hypervisors)):
            if key not in parameters:
                self._source.add(place, f"{key} is missing", "migrate: {guest: NAME, to: HOST}", at_key=True)
            else:
                self._member((*place, key), str(parameters[key]), known)
