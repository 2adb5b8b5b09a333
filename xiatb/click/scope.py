"""Names while compounds are expanded: variables, element classes, parameters."""

from __future__ import annotations

from xiatb.click.args import Argument, split, substitute
from xiatb.click.errors import Location, Problems
from xiatb.click.syntax import ClassRef, Config, Scope

REST = "__REST__"


class Env:
    """Names visible at a place: variables and compound classes, innermost first."""

    __slots__ = ("classes", "parent", "variables")

    def __init__(self, parent: Env | None) -> None:
        self.parent = parent
        self.variables: dict[str, str] = {}
        self.classes: dict[str, tuple[ClassRef, Env]] = {}

    def all_variables(self) -> dict[str, str]:
        """Every variable that is visible."""
        outer = self.parent.all_variables() if self.parent else {}
        return {**outer, **self.variables}

    def lookup(self, name: str) -> tuple[ClassRef, Env] | None:
        """What an element class name stands for and where that was written; None for primitive ones."""
        env: Env | None = self
        while env is not None:
            if name in env.classes:
                return env.classes[name]
            env = env.parent
        return None

    def class_names(self) -> list[str]:
        """Every compound class that is visible."""
        return list(self.classes) + (self.parent.class_names() if self.parent else [])

    def define(self, scope: Scope, problems: Problems) -> None:
        """Take the variables and classes that a scope defines."""
        for name, value, where in scope.defines:
            text, unknown = substitute(value, self.all_variables())
            for missing in unknown:
                problems.add(where, f"variable ${missing} is not defined")
            self.variables[name] = text
        for name, ref, where in scope.classes:
            if name in self.classes and self.classes[name][0].where != ref.where:
                first = self.classes[name][0].where
                problems.add(where, f"element class '{name}' is defined twice, first at {first}")
            self.classes[name] = (ref, self)

    def arguments(self, config: Config | None, problems: Problems) -> list[Argument]:
        """The arguments of a configuration, variables replaced; a list (`$rest`) becomes several."""
        if config is None:
            return []
        variables = self.all_variables()
        args: list[Argument] = []
        for argument in split(config.text, config.where):
            text, unknown = substitute(argument.text, variables)
            for name in unknown:
                problems.add(argument.where, f"variable ${name} is not defined")
            alone = argument.text.startswith("$") and argument.text[1:].strip("{}") in variables
            if alone and "," in text:
                args += [Argument(piece.text, argument.where) for piece in split(text, argument.where)]
            elif text or not argument.text.startswith("$"):
                args.append(Argument(text, argument.where))
        return args


class Place:
    """The inside of one pair of braces (or of the file) while it is expanded.

    prefix: what the names of its elements begin with; depth: how many compounds it is in; names: elements
    declared here; expanded: those done so far; used: ports of the compound that are connected inside.
    """

    __slots__ = ("depth", "env", "expanded", "inner", "names", "prefix", "used")

    def __init__(self, prefix: str, env: Env, depth: int) -> None:
        self.prefix = prefix
        self.env = env
        self.depth = depth
        self.inner = depth > 0
        self.names: dict[str, Location] = {}
        self.expanded: set[str] = set()
        self.used: dict[str, set[int]] = {"input": set(), "output": set()}

    def count(self, side: str) -> int:
        """Number of the compound's inputs or outputs."""
        return max(self.used[side], default=-1) + 1

    def anonymous(self, class_name: str) -> str:
        """A name for the next element that has none: `Class@N`, N counting the elements here."""
        number = len(self.expanded) + 1
        while f"{class_name}@{number}" in self.names:
            number += 1
        return f"{class_name}@{number}"


def match(body: Scope, args: list[Argument]) -> dict[str, str] | None:
    """Values of a body's parameters for these arguments; None when they do not fit."""
    values: dict[str, str] = {}
    texts = [argument.text for argument in args]
    for formal in body.formals:
        if formal.keyword in ("", REST):
            continue
        hit = next((text for text in texts if text.split(" ", 1)[0] == formal.keyword and " " in text), None)
        if hit is None:
            return None
        values[formal.name] = hit.split(" ", 1)[1].strip()
        texts.remove(hit)
    for formal in body.formals:
        if formal.keyword == "":
            if not texts:
                return None
            values[formal.name] = texts.pop(0)
        elif formal.keyword == REST:
            values[formal.name] = ", ".join(texts)
            texts = []
    return values if not texts else None


def signature(body: Scope) -> str:
    """The parameters of a body, for messages."""
    if not body.formals:
        return "no arguments"
    words = [f"{formal.keyword} ${formal.name}".strip() for formal in body.formals]
    return f"({', '.join(words)})"
