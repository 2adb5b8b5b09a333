"""The schema of a scenario file: what may be written, with types, ranges and defaults.

What needs the topology or other steps (does that node exist?) is checked in `reading`. Times are nanoseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from xiatb.experiments.scenario.checks import Check
from xiatb.lab import units
from xiatb.lab.linkparams import PARAMETERS, LinkParameterError, parse
from xiatb.lab.topology import DataPlane, Name

MAX_STEPS = 1000
MAX_REPEAT = 1000

Scalar = str | int | float | bool


class Part(BaseModel):
    """What all mappings of a scenario have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _refused(reason: object) -> PydanticCustomError:
    return PydanticCustomError("unit", "{reason}", {"reason": str(reason)})


def _duration(value: object) -> int:
    try:
        return units.any_duration(value)
    except ValueError as error:
        raise _refused(error) from error


def _link(value: object) -> tuple[str, str]:
    words = value.split() if isinstance(value, str) else []
    if len(words) != 3 or words[1] != "--":
        raise _refused(f"{value!r} is not A -- B, each NODE or NODE:PORT")
    return words[0], words[2]


def _check(value: object) -> Check:
    try:
        return Check.parse(value)
    except ValueError as error:
        raise _refused(error) from error


def _parameter(name: str) -> BeforeValidator:
    def validate(value: object) -> object:
        try:
            parse({name: value})
        except LinkParameterError as error:
            raise _refused(error.message.removeprefix(f"{name}: ")) from error
        return value

    return BeforeValidator(validate)


Duration = Annotated[int, BeforeValidator(_duration)]
Link = Annotated[tuple[str, str], BeforeValidator(_link)]
Expected = Annotated[Check, BeforeValidator(_check)]
Count = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Word = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)]


class _LinkSet(Part):
    link: Link
    source: Text | None = Field(None, alias="from")
    replace: Annotated[bool, Field(strict=True)] = False


_PARAMETERS: Any = {name: (Annotated[Any, _parameter(name)], None) for name in PARAMETERS}
LinkSet: type[_LinkSet] = create_model("LinkSet", __base__=_LinkSet, **_PARAMETERS)


class Ping(Part):
    """XCMP echo requests from a node."""

    source: Text = Field(alias="from")
    to: Text
    count: Count = 4
    interval: Duration = 10**9
    timeout: Duration = 10**9
    size: Annotated[int, Field(ge=0, le=60000, strict=True)] = 56


class Exec(Part):
    """A program in a node or guest; `background`: it runs until the end of the scenario."""

    on: Text
    command: Annotated[list[Word], Field(min_length=1)]
    timeout: Duration | None = None
    background: Annotated[bool, Field(strict=True)] = False


class CaptureStart(Part):
    """Frames at a node's ports (all without `port`) into NAME.pcapng, NAME being the step's."""

    on: Text
    port: Text | None = None
    snaplen: Annotated[int, Field(ge=64, le=262144, strict=True)] | None = None


class Wait(Part):
    """Until the lab has come together."""

    condition: Literal["joined", "converged", "guests"] = Field(alias="for")
    timeout: Duration = 30 * 10**9


class Step(Part):
    """One thing to do: exactly one of ACTIONS, when, and what must come of it."""

    name: Name | None = None
    at: Duration | None = None
    after: Text | None = None
    plus: Duration = 0
    link_set: LinkSet | None = None  # type: ignore[valid-type]
    link_down: Link | None = None
    link_up: Link | None = None
    ping: Ping | None = None
    exec: Exec | None = None
    capture: CaptureStart | None = None
    capture_stop: Text | None = None
    migrate: dict[str, Any] | None = None
    wait: Wait | None = None
    expect: dict[str, Expected] = {}

    @property
    def action(self) -> str:
        """Which one it is."""
        return next(name for name in ACTIONS if getattr(self, name) is not None)


ACTIONS = ("link_set", "link_down", "link_up", "ping", "exec", "capture", "capture_stop", "migrate", "wait")

RESULTS: dict[str, tuple[str, ...]] = {
    "link_set": ("state", "backend"),
    "link_down": ("state", "backend"),
    "link_up": ("state", "backend"),
    "ping": ("sent", "received", "lost", "lost_percent", "rtt_min_ms", "rtt_avg_ms", "rtt_max_ms"),
    "exec": ("returncode", "stdout", "stderr"),
    "capture": ("file",),
    "capture_stop": ("file", "packets", "dropped"),
    "wait": (),
}
"""What each action gives besides `seconds`; a migration's results are the migration daemon's."""


class ScenarioFile(Part):
    """A whole file."""

    topology: Text
    name: Name | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)] | None = None
    data_plane: DataPlane | None = None
    repeat: Annotated[int, Field(ge=1, le=MAX_REPEAT, strict=True)] = 1
    deadline: Duration = 600 * 10**9
    variables: dict[Name, Scalar] = {}
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]
