"""Expands compound elements: syntax tree -> flat list of elements and connections.

An element `x` of a compound gets the name `outer/x`. The pseudo elements `input` and `output` of a
compound are kept while expanding and spliced out at the end, so pass-through works. All errors of
the configuration are collected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xiatb.click.args import Argument
from xiatb.click.errors import Location, Problems
from xiatb.click.flat import Box, Connection, FlatElement, FlatGraph, check_boxes, splice
from xiatb.click.parser import parse
from xiatb.click.registry import suggestion
from xiatb.click.scope import Env, Place, match, signature
from xiatb.click.syntax import Chain, ClassRef, Compound, Declaration, Endpoint, Scope

MAX_NESTING = 32
MAX_ELEMENTS = 20_000
_ANY_VALUE = "Null"
"""Stands for a parameter's value in a compound that nothing uses: good as a text and as a class."""


class Flattener:
    """Expands one configuration.

    `is_class(name)` says whether a primitive element class exists, `all_names()` lists them. `bad` are the
    paths of elements that could not be expanded.
    """

    def __init__(
        self, is_class: Callable[[str], bool], all_names: Callable[[], list[str]], problems: Problems
    ) -> None:
        self.is_class = is_class
        self.all_names = all_names
        self.problems = problems
        self.elements: dict[str, FlatElement] = {}
        self.boxes: dict[str, Box] = {}
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
        env = Env(None)
        self.top = scopes[-1].where
        merged = Scope(scopes[-1].where)
        for scope in scopes:
            env.define(scope, self.problems)
            merged.statements += scope.statements
        self._scope(merged, Place("", env, 0))
        self._try_unused(env)

    def finish(self) -> FlatGraph:
        """Splice the compounds' ports out; gives the flat graph."""
        check_boxes(self.boxes, self.wires, self.bad, self.problems)
        wires = splice(self.elements, self.boxes, self.wires)
        return FlatGraph(self.elements, wires, self.requirements)

    def _try_unused(self, env: Env) -> None:
        """Expand the compounds that nothing uses too, only to find the errors in them."""
        for name, (ref, home) in env.classes.items():
            if ref.compound is None:
                self._resolve(ref, home)
            elif ref.where not in self.used:
                trial = Flattener(self.is_class, self.all_names, self.problems)
                trial.top, trial.count = self.top, self.count
                for number, body in enumerate(ref.compound.bodies):
                    inner = Env(home)
                    inner.variables = {formal.name: _ANY_VALUE for formal in body.formals}
                    inner.define(body, self.problems)
                    trial._scope(body, Place(f"{name}@{number}/", inner, 1))
                check_boxes(trial.boxes, trial.wires, trial.bad, self.problems)
                self.used |= trial.used

    def _scope(self, scope: Scope, place: Place) -> None:
        """Expand the statements of one scope."""
        for statement in scope.statements:
            for declaration in _declarations(statement):
                if declaration.name:
                    self._note_name(declaration, place)
        for statement in scope.statements:
            if isinstance(statement, Declaration):
                self._element(statement, statement.name, place)
            else:
                paths = [self._stop(stop, place) for stop in statement.stops]
                self._connect(statement, paths, place)
        for end, ports in place.used.items():
            for port in range(max(ports, default=-1)):
                if port not in ports:
                    self.problems.add(scope.where, f"'{end}' port {port} of this compound is not connected")

    def _note_name(self, declaration: Declaration, place: Place) -> None:
        name, where, names = declaration.name, declaration.where, place.names
        if place.inner and name in ("input", "output"):
            self.problems.add(where, f"'{name}' is the name of the compound's own ports")
        elif name in names:
            self.problems.add(where, f"element '{name}' is declared twice, first at {names[name]}")
        elif name.startswith("/") or name.endswith("/") or name.isdecimal():
            self.problems.add(where, f"'{name}' is not a good name for an element")
        names.setdefault(name, where)

    def _stop(self, stop: Endpoint, place: Place) -> str:
        """Path of the element at one stop of a chain, expanding it when it is declared there; '' if bad."""
        declaration = stop.declaration
        if declaration is None:
            if stop.name in place.names or (place.inner and stop.name in ("input", "output")):
                return place.prefix + stop.name
            if not (place.env.lookup(stop.name) or self.is_class(stop.name)):
                known = [*place.names, *place.env.class_names()]
                known += self.all_names() if stop.name[:1].isupper() else []
                hint = suggestion(stop.name, known)
                text = f"'{stop.name}' is neither an element nor an element class{hint}"
                self.problems.add(stop.where, text)
                return ""
            declaration = Declaration("", ClassRef(stop.where, stop.name), None, stop.where)
        name = declaration.name
        if not name:
            class_name = declaration.cls.name
            if declaration.cls.variable:
                class_name = place.env.all_variables().get(class_name, class_name)
            name = place.anonymous(class_name)
        self._element(declaration, name, place)
        return place.prefix + name

    def _connect(self, chain: Chain, paths: list[str], place: Place) -> None:
        stops = chain.stops
        for stop, port, side in (
            (stops[0], stops[0].in_port, "input"),
            (stops[-1], stops[-1].out_port, "output"),
        ):
            if port is not None:
                self.problems.add(stop.where, f"{side} port [{port}] leads nowhere (expected '->')")
        for left, right, source, target in zip(stops, stops[1:], paths, paths[1:], strict=False):
            if not source or not target:
                self.bad.update(path for path in (source, target) if path)
                continue
            wire = Connection(source, left.out_port or 0, target, right.in_port or 0, left.where)
            if place.inner:
                self._note_ports(wire, place)
            self.wires.append(wire)

    def _note_ports(self, wire: Connection, place: Place) -> None:
        """Remember which ports of the compound a connection inside it uses."""
        if wire.source == place.prefix + "output":
            self.problems.add(wire.where, "cannot connect from 'output' of a compound")
        if wire.target == place.prefix + "input":
            self.problems.add(wire.where, "cannot connect to 'input' of a compound")
        if wire.source == place.prefix + "input":
            place.used["input"].add(wire.out_port)
        if wire.target == place.prefix + "output":
            place.used["output"].add(wire.in_port)

    def _element(self, declaration: Declaration, name: str, place: Place) -> None:
        """Add one declared element, or the inside of the compound that it is."""
        if name in place.expanded:
            return
        place.expanded.add(name)
        path = place.prefix + name
        self.count += 1
        if self.count > MAX_ELEMENTS:
            text = f"more than {MAX_ELEMENTS} elements (compounds that contain each other?)"
            self.problems.add(self.top, text)
            self.bad.add(path)
            return
        args = place.env.arguments(declaration.config, self.problems)
        found = self._resolve(declaration.cls, place.env)
        config_where = declaration.config.where if declaration.config else declaration.where
        if isinstance(found, str):
            self.elements[path] = FlatElement(path, found, args, declaration.where, config_where)
        elif found is None:
            self.bad.add(path)
        elif place.depth >= MAX_NESTING:
            self.problems.add(declaration.where, f"compounds nest more than {MAX_NESTING} deep (recursion?)")
            self.bad.add(path)
        else:
            compound, home = found
            self._compound(compound, declaration, args, Place(path + "/", home, place.depth + 1))

    def _resolve(self, ref: ClassRef, env: Env) -> str | tuple[Compound, Env] | None:
        """The primitive class name, or the compound and where it was written; None when unknown."""
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
            if found is not None and found[0].name == name and not found[0].variable:
                # `elementclass Queue Queue`: the name means what it meant outside
                found = found[1].parent.lookup(name) if found[1].parent else None
            if found is None:
                break
            ref, env = found
        if self.is_class(name):
            return name
        hint = suggestion(name, env.class_names() + self.all_names())
        self.problems.add(ref.where, f"there is no element class '{name}'{hint}")
        return None

    def _compound(
        self, compound: Compound, declaration: Declaration, args: list[Argument], place: Place
    ) -> None:
        """Expand the first overload that fits; `place` is its inside, seen from where it was written."""
        path = place.prefix[:-1]
        for body in compound.bodies:
            variables = match(body, args)
            if variables is None:
                continue
            inside = Place(place.prefix, Env(place.env), place.depth)
            inside.env.variables.update(variables)
            inside.env.define(body, self.problems)
            self._scope(body, inside)
            self.boxes[path] = Box(inside.count("input"), inside.count("output"), declaration.where)
            return
        wants = " or ".join(signature(body) for body in compound.bodies)
        found = f"{len(args)} argument{'' if len(args) == 1 else 's'}"
        owner = declaration.cls.name or "this compound"
        self.problems.add(declaration.cls.where, f"{owner} expects {wants}, found {found}")
        self.bad.add(path)


def _declarations(statement: Declaration | Chain) -> list[Declaration]:
    if isinstance(statement, Declaration):
        return [statement]
    return [stop.declaration for stop in statement.stops if stop.declaration is not None]
