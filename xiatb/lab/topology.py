"""The schema of a topology file: what may be written, with which types, ranges and defaults.

These are parse types: they know nothing of MACs, XIDs or namespaces (`planner` makes those). Cross references
(does that node exist?) are checked in `check`, positions come from `source`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from xiatb.lab import units

NAME = re.compile(r"^[a-z][a-z0-9_-]{0,23}$")
NodeKind = Literal["host", "router", "hypervisor", "ip_router"]
DataPlane = Literal["auto", "ebpf", "click"]
DiskKind = Literal["private", "overlay", "shared"]

MIN_MTU, MAX_MTU = 1280, 65000


def _typed(parse: Callable[[object], object]) -> BeforeValidator:
    def validate(value: object) -> object:
        try:
            return parse(value)
        except ValueError as error:
            raise PydanticCustomError("unit", "{reason}", {"reason": str(error)}) from error

    return BeforeValidator(validate)


def _name(value: object) -> object:
    text = str(value)
    if not NAME.match(text):
        reason = f"{text!r} is not a name (a-z first, then a-z 0-9 - _, at most 24 characters)"
        raise PydanticCustomError("name", "{reason}", {"reason": reason})
    return text


def check_name(text: str) -> str:
    """The reason why `text` is no name of a lab, node, AD or guest; empty when it is one."""
    try:
        _name(text)
    except PydanticCustomError as error:
        return error.message()
    return ""


Name = Annotated[str, BeforeValidator(_name)]
Duration = Annotated[int, _typed(units.duration)]
Rate = Annotated[int, _typed(units.rate)]
Share = Annotated[int, _typed(units.share)]
Memory = Annotated[int, _typed(units.memory)]
ByteRate = Annotated[int, _typed(units.byte_rate)]
Queue = Annotated[int, _typed(units.queue)]
Burst = Annotated[int, _typed(units.burst)]
GeModel = Annotated[tuple[int, int, int, int], _typed(units.gemodel)]
Mtu = Annotated[int, Field(ge=MIN_MTU, le=MAX_MTU, strict=True)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImpairmentFile(_Part):
    """What a link does to frames; None means: take it from the link, then from the defaults."""

    rate: Rate | None = None
    delay: Duration | None = None
    jitter: Duration | None = None
    loss: Share | None = None
    burst: Burst | None = None
    gemodel: GeModel | None = None
    duplicate: Share | None = None
    reorder: Share | None = None
    queue: Queue | None = None


class LinkDefaults(ImpairmentFile):
    """`defaults.link`."""

    mtu: Mtu = 1500
    impairable: Annotated[bool, Field(strict=True)] = True


class LinkFile(ImpairmentFile):
    """One link. Delay and rate hold for each direction; `forward` (from the first endpoint to the second)
    and `backward` override them for one."""

    endpoints: Annotated[list[str], Field(min_length=2, max_length=2)]
    mtu: Mtu | None = None
    impairable: Annotated[bool, Field(strict=True)] | None = None
    ip: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    forward: ImpairmentFile = ImpairmentFile()
    backward: ImpairmentFile = ImpairmentFile()


class NodeFile(_Part):
    """One node; `data_plane` None: that of the whole topology."""

    kind: NodeKind
    ad: Name | None = None
    click: str | None = None
    data_plane: DataPlane | None = None


class ServiceFile(_Part):
    """One service in a guest; `memory` and `disk` are the writer's rates in bytes per second."""

    kind: Literal["echo", "responder", "writer"]
    name: Name | None = None
    memory: ByteRate | None = None
    disk: ByteRate | None = None


class GuestDefaults(_Part):
    """`defaults.guest`."""

    memory: Memory = 192 * 2**20
    vcpus: Annotated[int, Field(ge=1, le=16, strict=True)] = 1
    mtu: Mtu | None = None


class GuestFile(_Part):
    """One guest; `on` names the hypervisor that it starts on."""

    on: Name
    memory: Memory | None = None
    vcpus: Annotated[int, Field(ge=1, le=16, strict=True)] | None = None
    mtu: Mtu | None = None
    disk: DiskKind = "private"
    services: list[ServiceFile] = []


class Defaults(_Part):
    """`defaults`."""

    link: LinkDefaults = LinkDefaults()
    guest: GuestDefaults = GuestDefaults()


class AdFile(_Part):
    """One administrative domain; nothing can be set so far."""


class TopologyFile(_Part):
    """A whole file."""

    name: Name
    seed: Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)] = 1
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    data_plane: DataPlane = "auto"
    baseline: Literal["ip"] | None = None
    name_server: Name | None = None
    rendezvous: Name | None = None
    migration_policy: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    defaults: Defaults = Defaults()
    ads: dict[Name, AdFile] = {}
    nodes: Annotated[dict[Name, NodeFile], Field(min_length=1, max_length=250)]
    guests: Annotated[dict[Name, GuestFile], Field(max_length=64)] = {}
    links: Annotated[list[LinkFile], Field(max_length=1000)] = []


BRIEF_LINK = re.compile(r"^\s*(\S+)\s+--\s+(\S+)\s*$")


def normalise(data: Any) -> Any:
    """Long form of everything that has a brief one: links "a -- b", services "echo", empty nodes, ads,
    guests.

    Anything that fits no form is left as it is for the schema to complain about."""
    if not isinstance(data, dict):
        return data
    result = dict(data)
    for table in ("ads", "nodes", "guests"):
        if isinstance(result.get(table), dict):
            result[table] = {key: {} if value is None else value for key, value in result[table].items()}
    for table in ("ads", "guests", "links", "defaults"):
        if table in result and result[table] is None:
            del result[table]
    if isinstance(result.get("links"), list):
        result["links"] = [_long_link(link) for link in result["links"]]
    if isinstance(result.get("guests"), dict):
        result["guests"] = {name: _long_guest(guest) for name, guest in result["guests"].items()}
    return result


def _long_link(link: Any) -> Any:
    match = BRIEF_LINK.match(link) if isinstance(link, str) else None
    return {"endpoints": [match[1], match[2]]} if match else link


def _long_guest(guest: Any) -> Any:
    if not isinstance(guest, dict) or not isinstance(guest.get("services"), list):
        return guest
    services = [{"kind": service} if isinstance(service, str) else service for service in guest["services"]]
    return {**guest, "services": services}
