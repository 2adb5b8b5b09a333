"""The parameters of a link: one table for topology files, `xiatb link` and scenarios.

Values are parsed by `units`, which names the allowed range in every refusal; what no single value shows
(jitter above the delay, say) is in `contradictions`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from xiatb.errors import UsageError
from xiatb.lab import units
from xiatb.lab.plan import Impairment

NONE = ("none", "off")


class LinkParameterError(UsageError):
    """Link parameters that cannot be; the message names each and its range."""


class Parameter(NamedTuple):
    """One parameter: how it is read and shown, its range and meaning in words."""

    parse: Callable[[object], Any]
    show: Callable[[Any], str]
    metavar: str
    range: str
    help: str
    off: Any = 0
    """the value that `none` stands for"""


PARAMETERS: dict[str, Parameter] = {
    "rate": Parameter(
        units.rate, units.show_rate, "RATE", "8kbit to 100gbit, or none", "Bits a second of frames.", None
    ),
    "delay": Parameter(units.duration, units.show_duration, "DURATION", "0 to 10s", "One way."),
    "jitter": Parameter(
        units.duration, units.show_duration, "DURATION", "0 to the delay", "Uniform, around the delay."
    ),
    "loss": Parameter(units.share, units.show_share, "SHARE", "0% to 100%", "Frames lost."),
    "burst": Parameter(units.burst, str, "FRAMES", "0 to 10000", "Mean length of a run of lost frames."),
    "gemodel": Parameter(
        units.gemodel,
        units.show_gemodel,
        "'P [R [1-H [1-K]]]'",
        "four shares of 0% to 100%, or none",
        "Gilbert-Elliott loss as in tc-netem(8), in place of loss and burst.",
        None,
    ),
    "duplicate": Parameter(units.share, units.show_share, "SHARE", "0% to 100%", "Frames doubled."),
    "reorder": Parameter(units.share, units.show_share, "SHARE", "0% to 100%", "Frames that skip the delay."),
    "queue": Parameter(
        units.queue, units.show_size, "SIZE", "3kB to 1G", "Bytes that wait for the shaper.", 262144
    ),
}


def parse(values: Mapping[str, object]) -> dict[str, Any]:
    """Texts with units to the values of an Impairment. Raises LinkParameterError that names every bad one."""
    parsed: dict[str, Any] = {}
    problems = []
    for name, value in values.items():
        parameter = PARAMETERS.get(name)
        if parameter is None:
            problems.append(f"unknown link parameter {name!r}")
        elif isinstance(value, str) and value.strip().lower() in NONE:
            parsed[name] = parameter.off
        else:
            try:
                parsed[name] = parameter.parse(value)
            except ValueError as error:
                problems.append(f"{name}: {error}")
    if problems:
        known = ", ".join(f"{name} ({one.range})" for name, one in PARAMETERS.items())
        raise LinkParameterError("; ".join(problems), hint=f"parameters: {known}")
    return parsed


def merge(old: Impairment, changes: Mapping[str, Any]) -> Impairment:
    """`old` with `changes` (parsed values). A loss model takes the place of the other one."""
    changed = dict(changes)
    if changed.get("gemodel") is not None:
        changed = {"loss": 0, "burst": 0, **changed}
    elif changed.get("loss") or changed.get("burst"):
        changed = {"gemodel": None, **changed}
    return dataclasses.replace(old, **changed)


def layered(*layers: object) -> Impairment:
    """From the farthest layer to the nearest, each with the parameters as attributes, None where it says
    nothing: what is written nearest counts."""
    result = Impairment()
    for layer in layers:
        written = {name: getattr(layer, name) for name in PARAMETERS}
        result = merge(result, {name: value for name, value in written.items() if value is not None})
    return result


def contradictions(one: Impairment) -> list[str]:
    """Why an impairment cannot be, one reason each with the allowed range; empty when it can."""
    found = []
    if one.jitter > one.delay:
        jitter, delay = units.show_duration(one.jitter), units.show_duration(one.delay)
        found.append(f"jitter: {jitter} is out of range: 0 to the delay ({delay})")
    if one.gemodel is not None and (one.loss or one.burst):
        found.append("gemodel: is in place of loss and burst: give one or the other")
    if one.burst > 1 and one.loss < 1_000_000 and one.loss * (one.burst + 1) > one.burst * 1_000_000:
        most = units.show_share(one.burst * 1_000_000 // (one.burst + 1))
        share = units.show_share(one.loss)
        found.append(f"loss: {share} is out of range with burst {one.burst}: 0% to {most}")
    if one.reorder and not one.delay:
        found.append("reorder: frames can skip no delay: set a delay")
    return found


def shown(one: Impairment) -> dict[str, str]:
    """What is set, as text that `parse` reads back; the queue only where a rate makes it matter."""
    result = {}
    for name, parameter in PARAMETERS.items():
        value = getattr(one, name)
        if value and (name != "queue" or one.rate is not None):
            result[name] = parameter.show(value)
    return result
