"""The parsed form of a Click file, before compound elements are expanded."""

from __future__ import annotations

from typing import NamedTuple

from xiatb.click.errors import Location


class ClassRef:
    """The class of an element: a name, a `$variable`, or a compound written in place."""

    __slots__ = ("compound", "name", "variable", "where")

    def __init__(
        self, where: Location, name: str = "", compound: Compound | None = None, variable: bool = False
    ) -> None:
        self.where = where
        self.name = name
        self.compound = compound
        self.variable = variable


class Config(NamedTuple):
    """A configuration string: raw text between the parentheses, and the place of its first character."""

    text: str
    where: Location


class Declaration:
    """`name :: Class(config)`; `name` is empty for an anonymous element."""

    __slots__ = ("cls", "config", "name", "where")

    def __init__(self, name: str, cls: ClassRef, config: Config | None, where: Location) -> None:
        self.name = name
        self.cls = cls
        self.config = config
        self.where = where


class Endpoint:
    """One stop of a connection chain: `[in] element [out]`.

    `name` names an element or, when no element has that name, a class; `declaration` is set instead
    when the element is declared in place.
    """

    __slots__ = ("declaration", "in_port", "name", "out_port", "where")

    def __init__(self, name: str, declaration: Declaration | None, where: Location) -> None:
        self.name = name
        self.declaration = declaration
        self.where = where
        self.in_port: int | None = None
        self.out_port: int | None = None


class Chain:
    """`a -> b -> c`, or a lone endpoint."""

    __slots__ = ("stops",)

    def __init__(self, stops: list[Endpoint]) -> None:
        self.stops = stops


class Formal(NamedTuple):
    """A parameter of a compound: `$name`, or `KEYWORD $name`; keyword `__REST__` takes what is left."""

    name: str
    keyword: str
    where: Location


class Scope:
    """What one file or one pair of braces holds, in source order."""

    __slots__ = ("classes", "defines", "formals", "statements", "where")

    def __init__(self, where: Location) -> None:
        self.where = where
        self.formals: list[Formal] = []
        self.classes: list[tuple[str, ClassRef, Location]] = []
        self.defines: list[tuple[str, str, Location]] = []
        self.statements: list[Declaration | Chain] = []


class Compound:
    """`{ ... || ... }`: one body for each overload."""

    __slots__ = ("bodies",)

    def __init__(self, bodies: list[Scope]) -> None:
        self.bodies = bodies
