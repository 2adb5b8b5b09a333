"""Expands compound elements: syntax tree -> flat list of elements and connections.

An element `x` of a compound gets the name `outer/x`. The pseudo elements `input` and `output` of a
compound are kept while expanding and spliced out at the end, so pass-through works. All errors of
the configuration are collected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from xiatb.click.args import Argument, split, substitute
from xiatb.click.errors import Location, Problems
from xiatb.click.parser import parse
from xiatb.click.registry import suggestion
from xiatb.click.syntax import Chain, ClassRef, Compound, Config, Declaration, Endpoint, Scope

MAX_NESTING = 32
MAX_ELEMENTS = 20_000
_REST = "__REST__"
_ANY_VALUE = "Null"
"""Stands for a parameter's value in a compound that nothing uses: good as a text and as a class."""


class FlatElement(NamedTuple):
    """An element of the flat graph."""

    name: str
    class_name: str
    args: list[Argument]
    where: Location
    config_where: Location

    @property
    def config(self) -> str:
        """The configuration as text."""
        return ", ".join(argument.text for argument in self.args)


class Connection(NamedTuple):
    """Output `out_port` of `source` leads to input `in_port` of `target`."""

    source: str
    out_port: int
    target: str
    in_port: int
    where: Location


class FlatGraph(NamedTuple):
    """A configuration without compounds."""

    elements: dict[str, FlatElement]
    connections: list[Connection]
    requirements: list[str]

    def to_text(self) -> str:
        """The graph in the Click language; flattening that gives the same graph."""
        lines = []
        for element in self.elements.values():
            config = f"({element.config})" if element.args else ""
            lines.append(f"{element.name} :: {element.class_name}{config};")
        lines.append("")
        for wire in sorted({wire[:4] for wire in self.connections}):
            source, out_port, target, in_port = wire
            left = f"{source} [{out_port}]" if out_port else source
            right = f"[{in_port}] {target}" if in_port else target
            lines.append(f"{left} -> {right};")
        return "\n".join(lines) + "\n"


class _Env:
    """Names visible at a place: variables and compound classes, innermost first."""

    __slots__ = ("classes", "parent", "variables")

    def __init__(self, parent: _Env | None) -> None:
        self.parent = parent
        self.variables: dict[str, str] = {}
        self.classes: dict[str, tuple[ClassRef, _Env]] = {}

    def all_variables(self) -> dict[str, str]:
        outer = self.parent.all_variables() if self.parent else {}
        return {**outer, **self.variables}

    def lookup(self, name: str) -> tuple[ClassRef, _Env] | None:
        env: _Env | None = self
        while env is not None:
            if name in env.classes:
                return env.classes[name]
            env = env.parent
        return None

    def class_names(self) -> list[str]:
        return list(self.classes) + (self.parent.class_names() if self.parent else [])


class _Box(NamedTuple):
    """An expanded compound: how many ports it has, and where it was declared."""

    n_in: int
    n_out: int
    where: Location


class Flattener:
    """Expands one configuration. `is_class(name)` says whether a primitive element class exists."""

    def __init__(
        self, is_class: Callable[[str], bool], all_names: Callable[[], list[str]], problems: Problems
    ):
        self.is_class = is_class
        self.all_names = all_names
        self.problems = problems
        self.elements: dict[str, FlatElement] = {}
        self.boxes: dict[str, _Box] = {}
        self.wires: list[Connection] = []
        self.bad: set[str] = set()
        self.requirements: list[str] = []
        self.top = Location("", 0, 0)
        self.count = 0
        self.used: set[Location] = set()

    # -- files ----------------------------------------------------------------------------------
    def load(self, text: str, filename: str, library_dirs: list[Path]) -> list[Scope]:
        """Parse a file and, before it, the library files it requires, each once; gives their scopes."""
        done: set[str] = set()

        def read(text: str, filename: str, directory: Path) -> list[Scope]:
            scope, requires = parse(text, filename, self.problems)
            scopes: list[Scope] = []
            for name, where in requires:
                self.requirements.append(name)
                path = next((d / name for d in [directory, *library_dirs] if (d / name).is_file()), None)
                if path is None:
                    places = ", ".join(str(d) for d in [directory, *library_dirs])
                    self.problems.add(where, f"cannot find library file '{name}' (looked in {places})")
                elif str(path.resolve()) not in done:
                    done.add(str(path.resolve()))
                    scopes += read(self._read(path, where), str(path), path.parent)
            return [*scopes, scope]

        return read(text, filename, Path(filename).parent)

    def _read(self, path: Path, where: Location) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.problems.add(where, f"cannot read library file '{path}': {error}")
            return ""

    # -- expansion ------------------------------------------------------------------------------
    def expand(self, scopes: list[Scope]) -> None:
        """Expand the outermost scopes, which share their names."""
        env = _Env(None)
        self.top = scopes[-1].where
        for scope in scopes:
            self._define(scope, env)
        merged = Scope(scopes[-1].where)
        for scope in scopes:
            merged.statements += scope.statements
        self._scope(merged, "", env, 0, inner=False)
        self._try_unused(env)

    def _try_unused(self, env: _Env) -> None:
        """Expand the compounds that nothing uses too, only to find the errors in them."""
        for name, (ref, home) in env.classes.items():
            if ref.compound is None or ref.where in self.used:
                continue
            trial = Flattener(self.is_class, self.all_names, self.problems)
            trial.top, trial.count = self.top, self.count
            for number, body in enumerate(ref.compound.bodies):
                inner = _Env(home)
                inner.variables = {formal.name: _ANY_VALUE for formal in body.formals}
                trial._define(body, inner)
                trial._scope(body, f"{name}@{number}/", inner, 1, inner=True)
            trial._check_boxes()
            self.used |= trial.used

    def _define(self, scope: Scope, env: _Env) -> None:
        for name, value, where in scope.defines:
            text, unknown = substitute(value, env.all_variables())
            for missing in unknown:
                self.problems.add(where, f"variable ${missing} is not defined")
            env.variables[name] = text
        for name, ref, where in scope.classes:
            if name in env.classes and env.classes[name][0].where != ref.where:
                first = env.classes[name][0].where
                self.problems.add(where, f"element class '{name}' is defined twice, first at {first}")
            env.classes[name] = (ref, env)

    def _scope(self, scope: Scope, prefix: str, env: _Env, depth: int, inner: bool) -> tuple[int, int]:
        """Expand the statements of one scope; gives the numbers of inputs and outputs of a compound."""
        names: dict[str, Location] = {}
        for statement in scope.statements:
            for declaration in _declarations(statement):
                if declaration.name:
                    self._note_name(declaration, names, inner)
        expanded: set[str] = set()
        used: dict[str, set[int]] = {"input": set(), "output": set()}
        for statement in scope.statements:
            if isinstance(statement, Declaration):
                self._element(statement, statement.name, prefix, env, depth, expanded)
                continue
            paths = [self._stop(stop, names, prefix, env, depth, expanded, inner) for stop in statement.stops]
            self._connect(statement, paths, prefix, used if inner else None)
        self._port_gaps(scope, used)
        return max(used["input"], default=-1) + 1, max(used["output"], default=-1) + 1

    def _port_gaps(self, scope: Scope, used: dict[str, set[int]]) -> None:
        for end, ports in used.items():
            for port in range(max(ports, default=-1)):
                if port not in ports:
                    self.problems.add(scope.where, f"'{end}' port {port} of this compound is not connected")

    def _note_name(self, declaration: Declaration, names: dict[str, Location], inner: bool) -> None:
        name = declaration.name
        if inner and name in ("input", "output"):
            self.problems.add(declaration.where, f"'{name}' is the name of the compound's own ports")
        elif name in names:
            self.problems.add(
                declaration.where, f"element '{name}' is declared twice, first at {names[name]}"
            )
        elif name.startswith("/") or name.endswith("/") or name.isdecimal():
            self.problems.add(declaration.where, f"'{name}' is not a good name for an element")
        names.setdefault(name, declaration.where)

    def _stop(
        self, stop: Endpoint, names: dict[str, Location], prefix: str, env: _Env, depth: int,
        expanded: set[str], inner: bool,
    ) -> str:  # fmt: skip
        """Path of the element at one stop of a chain, expanding it when it is declared there; '' if bad."""
        declaration = stop.declaration
        if declaration is None:
            if stop.name in names or (inner and stop.name in ("input", "output")):
                return prefix + stop.name
            if not (env.lookup(stop.name) or self.is_class(stop.name)):
                known = [*names, *env.class_names()]
                known += self.all_names() if stop.name[:1].isupper() else []
                hint = suggestion(stop.name, known)
                self.problems.add(
                    stop.where, f"'{stop.name}' is neither an element nor an element class{hint}"
                )
                return ""
            declaration = Declaration("", ClassRef(stop.where, stop.name), None, stop.where)
        name = declaration.name
        if not name:
            cls_name = declaration.cls.name if not declaration.cls.compound else ""
            if declaration.cls.variable:
                cls_name = env.all_variables().get(cls_name, cls_name)
            number = len(expanded) + 1
            while f"{cls_name}@{number}" in names:
                number += 1
            name = f"{cls_name}@{number}"
        self._element(declaration, name, prefix, env, depth, expanded)
        return prefix + name

    def _connect(self, chain: Chain, paths: list[str], prefix: str, used: dict[str, set[int]] | None) -> None:
        stops = chain.stops
        for end, port in (("first", stops[0].in_port), ("last", stops[-1].out_port)):
            if port is not None:
                stop = stops[0] if end == "first" else stops[-1]
                side = "input" if end == "first" else "output"
                self.problems.add(stop.where, f"{side} port [{port}] leads nowhere (expected '->')")
        for left, right, source, target in zip(stops, stops[1:], paths, paths[1:], strict=False):
            if not source or not target:
                self.bad.update(path for path in (source, target) if path)
                continue
            out_port, in_port = left.out_port or 0, right.in_port or 0
            if used is not None:
                for path, end, wrong, port in (
                    (source, "input", "output", out_port),
                    (target, "output", "input", in_port),
                ):
                    if path == prefix + wrong:
                        word = "from" if wrong == "output" else "to"
                        self.problems.add(left.where, f"cannot connect {word} '{wrong}' of a compound")
                    if path == prefix + end:
                        used[end].add(port)
            self.wires.append(Connection(source, out_port, target, in_port, left.where))

    def _element(
        self, declaration: Declaration, name: str, prefix: str, env: _Env, depth: int, expanded: set[str]
    ) -> None:
        """Add one declared element, or the inside of the compound that it is."""
        path = prefix + name
        if name in expanded:
            return
        expanded.add(name)
        self.count += 1
        if self.count > MAX_ELEMENTS:
            self.problems.add(
                self.top, f"more than {MAX_ELEMENTS} elements (compounds that contain each other?)"
            )
            self.bad.add(path)
            return
        args = self._args(declaration.config, env)
        found = self._resolve(declaration.cls, env)
        config_where = declaration.config.where if declaration.config else declaration.where
        if isinstance(found, str):
            self.elements[path] = FlatElement(path, found, args, declaration.where, config_where)
        elif found is None:
            self.bad.add(path)
        elif depth >= MAX_NESTING:
            self.problems.add(declaration.where, f"compounds nest more than {MAX_NESTING} deep (recursion?)")
            self.bad.add(path)
        else:
            self._compound(found[0], found[1], args, path, declaration, depth)

    def _resolve(self, ref: ClassRef, env: _Env) -> str | tuple[Compound, _Env] | None:
        """The primitive class name, or the compound and where it was written; None when unknown
        (reported).
        """
        for _ in range(MAX_NESTING):
            if ref.compound is not None:
                self.used.add(ref.where)
                return ref.compound, env
            name = ref.name
            if ref.variable:
                value = env.all_variables().get(name)
                if value is None:
                    self.problems.add(ref.where, f"variable ${name} is not defined")
                    return None
                name = value
            found = env.lookup(name)
            if found is None:
                break
            if found[0].name == name and not found[0].variable:
                if found[1].parent is None or not (outer := found[1].parent.lookup(name)):
                    break
                found = outer
            ref, env = found
        if self.is_class(name):
            return name
        hint = suggestion(name, env.class_names() + self.all_names())
        self.problems.add(ref.where, f"there is no element class '{name}'{hint}")
        return None

    def _args(self, config: Config | None, env: _Env) -> list[Argument]:
        if config is None:
            return []
        variables = env.all_variables()
        args: list[Argument] = []
        for argument in split(config.text, config.where):
            text, unknown = substitute(argument.text, variables)
            for name in unknown:
                self.problems.add(argument.where, f"variable ${name} is not defined")
            rest = (
                argument.text.startswith("$") and argument.text[1:].strip("{}") in variables and "," in text
            )
            if rest:
                args += [Argument(piece.text, argument.where) for piece in split(text, argument.where)]
            elif text or not argument.text.startswith("$"):
                args.append(Argument(text, argument.where))
        return args

    def _compound(
        self,
        compound: Compound,
        env: _Env,
        args: list[Argument],
        path: str,
        declaration: Declaration,
        depth: int,
    ) -> None:
        for body in compound.bodies:
            variables = _match(body, args)
            if variables is None:
                continue
            inner = _Env(env)
            inner.variables.update(variables)
            self._define(body, inner)
            n_in, n_out = self._scope(body, path + "/", inner, depth + 1, inner=True)
            self.boxes[path] = _Box(n_in, n_out, declaration.where)
            return
        wants = " or ".join(_signature(body) for body in compound.bodies)
        found = f"{len(args)} argument{'' if len(args) == 1 else 's'}"
        self.problems.add(
            declaration.cls.where, f"{declaration.cls.name} expects {wants}, found {found}".strip()
        )
        self.bad.add(path)

    # -- splicing -------------------------------------------------------------------------------
    def finish(self) -> FlatGraph:
        """Splice the compounds' ports out; gives the flat graph."""
        forward: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for wire in self.wires:
            source = wire.source + "/output" if wire.source in self.boxes else wire.source
            target = wire.target + "/input" if wire.target in self.boxes else wire.target
            forward.setdefault((source, wire.out_port), []).append((target, wire.in_port))
        self._check_boxes()
        connections: dict[tuple[str, int, str, int], Connection] = {}
        for wire in self.wires:
            if wire.source not in self.elements:
                continue
            first = wire.target + "/input" if wire.target in self.boxes else wire.target
            for target, port in self._follow(forward, (first, wire.in_port), wire):
                key = (wire.source, wire.out_port, target, port)
                connections.setdefault(key, Connection(*key, wire.where))
        return FlatGraph(self.elements, list(connections.values()), self.requirements)

    def _follow(
        self, forward: dict[tuple[str, int], list[tuple[str, int]]], start: tuple[str, int], wire: Connection
    ) -> list[tuple[str, int]]:
        """The real elements' inputs that `start` leads to, through any number of compound ports."""
        found, waiting, seen = [], [start], set()
        while waiting:
            end = waiting.pop()
            if end in seen:
                continue
            seen.add(end)
            if end[0] in self.elements:
                found.append(end)
            else:
                waiting += forward.get(end, [])
        return found

    def _check_box(self, wire: Connection) -> None:
        for path, port, side in (
            (wire.source, wire.out_port, "output"),
            (wire.target, wire.in_port, "input"),
        ):
            box = self.boxes.get(path)
            if box is None:
                continue
            count = box.n_out if side == "output" else box.n_in
            if port >= count:
                self.problems.add(wire.where, f"'{path}' has no {side} {port} (it has {count})")

    def _check_boxes(self) -> None:
        for wire in self.wires:
            self._check_box(wire)
        inputs = {(wire.target, wire.in_port) for wire in self.wires}
        outputs = {(wire.source, wire.out_port) for wire in self.wires}
        for path, box in self.boxes.items():
            for side, count, used in (("input", box.n_in, inputs), ("output", box.n_out, outputs)):
                for port in range(count):
                    if (path, port) not in used and path not in self.bad:
                        self.problems.add(box.where, f"{side} {port} of '{path}' is not connected")


def _declarations(statement: Declaration | Chain) -> list[Declaration]:
    if isinstance(statement, Declaration):
        return [statement]
    return [stop.declaration for stop in statement.stops if stop.declaration is not None]


def _match(body: Scope, args: list[Argument]) -> dict[str, str] | None:
    """Values of a body's parameters for these arguments; None when they do not fit."""
    values: dict[str, str] = {}
    texts = [argument.text for argument in args]
    for formal in body.formals:
        if formal.keyword in ("", _REST):
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
        elif formal.keyword == _REST:
            values[formal.name] = ", ".join(texts)
            texts = []
    return values if not texts else None


def _signature(body: Scope) -> str:
    if not body.formals:
        return "no arguments"
    words = [f"{formal.keyword} ${formal.name}".strip() for formal in body.formals]
    return f"({', '.join(words)})"
