"""The router: a checked graph of elements, linked and running, with its handlers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.click import registry
from xiatb.click.args import bind
from xiatb.click.context import Context
from xiatb.click.element import Element, listing
from xiatb.click.errors import ClickFileError, ConfigError, HandlerError, Problems
from xiatb.click.flat import FlatElement, FlatGraph
from xiatb.click.flatten import Flattener
from xiatb.click.library import library_path
from xiatb.click.packet import Packet
from xiatb.click.processing import KIND_WORDS, PULL, PUSH, check_ports, count_ports, resolve
from xiatb.click.scheduler import Scheduler
from xiatb.errors import InvalidFileError, XiatbError


def flatten_text(
    text: str, filename: str, library_dirs: list[Path] | None = None
) -> tuple[FlatGraph, Problems]:
    """Parse and expand a configuration. The problems may hold errors; the graph is then what could be
    read.
    """
    problems = Problems()
    flattener = Flattener(
        lambda name: registry.find(name) is not None, lambda: list(registry.all_classes()), problems
    )
    directories = [*(library_dirs or []), *library_path()]
    flattener.expand(flattener.load(text, filename, directories))
    flat = flattener.finish()
    return flat, problems


class Router:
    """A graph of elements.

    Made by `from_text`/`from_file`, which raise ClickFileError with all errors; `initialize` gives it a
    world. `elements` maps flat names to elements. `refresh` is called before a handler is read or written:
    whoever does some of the graph's work elsewhere brings the elements' counters up to date then.
    """

    def __init__(self, flat: FlatGraph, text: str, filename: str) -> None:
        self.flat = flat
        self.text = text
        self.filename = filename
        self.elements: dict[str, Element] = {}
        self.processing: dict[str, str] = {}
        self.channels: dict[str, Element] = {}
        self.ctx: Context | None = None
        self.scheduler: Scheduler | None = None
        self.refresh: Callable[[], None] = _nothing_new

    @classmethod
    def from_file(cls, path: str | Path, library_dirs: list[Path] | None = None) -> Router:
        """Read, check and build the configuration in a file. Raises InvalidFileError."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidFileError(f"cannot read {path}: {error}") from None
        return cls.from_text(text, str(path), library_dirs)

    @classmethod
    def from_text(cls, text: str, filename: str = "<text>", library_dirs: list[Path] | None = None) -> Router:
        """Check and build a configuration. `library_dirs` come before the standard library path.

        Raises ClickFileError, whose `problems` are all errors as `file:line:col: text`.
        """
        flat, problems = flatten_text(text, filename, library_dirs)
        router = cls(flat, text, filename)
        whole = not problems
        wrong = router._build(problems)
        ports = count_ports(flat)
        if whole:
            check_ports(flat, router.elements, ports, wrong, problems)
        router.processing = resolve(flat, router.elements, ports, problems)
        problems.raise_if_any(filename)
        router._link()
        return router

    def _build(self, problems: Problems) -> set[str]:
        """Make and configure the elements; gives the names of those whose arguments are wrong."""
        wrong: set[str] = set()
        for flat in self.flat.elements.values():
            cls = registry.find(flat.class_name)
            if cls is None:
                continue
            element = cls(flat.name)
            element.config = flat.config
            self.elements[flat.name] = element
            values, errors = bind(cls.ARGS, [argument.text for argument in flat.args], flat.class_name)
            if not errors:
                try:
                    element.configure(values)
                except ConfigError as refusal:
                    errors.append(refusal)
            for error in errors:
                wrong.add(flat.name)
                where = _argument_place(flat, error)
                problems.add(where, f"'{flat.name} :: {flat.class_name}': {error.message}")
        return wrong

    def _link(self) -> None:
        """Resolve every output to the callable behind it, and every pull input."""
        for name, element in self.elements.items():
            ins, outs = self.processing[name].split("/")
            element.n_in, element.n_out = len(ins), len(outs)
            element.outs = [element.out0] * len(outs)
            element.ins = [element.in0] * len(ins)
            element.targets = [(element, 0)] * len(outs)
            element.upstream = [[] for _ in ins]
            element.ports = [f"input {port} {KIND_WORDS[kind]}" for port, kind in enumerate(ins)]
            element.ports += [f"output {port} {KIND_WORDS[kind]}" for port, kind in enumerate(outs)]
        for wire in self.flat.connections:
            source, target = self.elements[wire.source], self.elements[wire.target]
            kind = self.processing[wire.source].split("/")[1][wire.out_port]
            source.targets[wire.out_port] = (target, wire.in_port)
            if kind == PUSH:
                source.outs[wire.out_port] = target.receiver(wire.in_port)
            elif kind == PULL:
                target.ins[wire.in_port] = source.puller(wire.out_port)
                target.upstream[wire.in_port].append(source)
        for element in self.elements.values():
            element.out0 = element.outs[0] if element.outs else element.out0
            element.in0 = element.ins[0] if element.ins else element.in0

    def initialize(self, ctx: Context) -> None:
        """Give the graph its world; from now on packets move. Raises ClickFileError naming every
        element that fails.
        """
        self.ctx = ctx
        scheduler = self.scheduler = Scheduler(ctx, self.write)
        problems = Problems()
        for element in self.elements.values():
            element.ctx = ctx
            element.sched = scheduler
        for name, element in self.elements.items():
            try:
                element.initialize(ctx)
            except XiatbError as error:
                where = self.flat.elements[name].where
                problems.add(where, f"'{name} :: {element.class_name}': {error.message}")
            channel = getattr(element, "inject_channel", None)
            if channel is not None:
                self.channels[channel] = element
        if problems:
            self.cleanup()
        problems.raise_if_any(self.filename)

    def cleanup(self) -> None:
        """The router goes: elements close their files and let go of their devices."""
        for element in self.elements.values():
            element.cleanup()

    def inject(self, where: str, packet: Packet) -> None:
        """The node puts a packet in at the FromHost of that channel or element name.

        Raises HandlerError when there is none.
        """
        element = self.channels.get(where) or self.elements.get(where)
        if element is None or getattr(element, "inject_channel", None) is None:
            raise HandlerError(f"there is no FromHost '{where}'", 510)
        element.sched.enter(element.receive, packet)

    # -- handlers -------------------------------------------------------------------------------
    def read(self, path: str, argument: str = "") -> str:
        """The value of a read handler, `element.handler` or a global one (`list`, `config`, ...)."""
        element, name = self._split(path)
        if element is None:
            return self._read_global(name)
        self._bring_up_to_date()
        handlers = element.read_handlers()
        if name not in handlers:
            known = "; it is write-only" if name in element.write_handlers() else ""
            raise HandlerError(f"no read handler '{path}'{known}", 511)
        return handlers[name](argument)

    def write(self, path: str, value: str = "") -> None:
        """Write to a handler. Raises HandlerError or what the element refuses with."""
        element, name = self._split(path)
        handlers = element.write_handlers() if element is not None else {}
        if element is None or name not in handlers:
            raise HandlerError(f"no write handler '{path}'", 511)
        self._bring_up_to_date()
        try:
            handlers[name](value)
        finally:
            if self.scheduler is not None:
                self.scheduler.forget_flows()

    def _bring_up_to_date(self) -> None:
        """Counters get what was done without the elements."""
        if self.scheduler is not None:
            self.scheduler.settle()
        self.refresh()

    def has_handler(self, path: str, write: bool = False) -> bool:
        """Whether `read` or `write` would find a handler; raises HandlerError when there is no such
        element.
        """
        element, name = self._split(path)
        if element is None:
            return not write and name in GLOBAL_HANDLERS
        return name in (element.write_handlers() if write else element.read_handlers())

    def _split(self, path: str) -> tuple[Element | None, str]:
        owner, dot, name = path.strip().rpartition(".")
        if not dot:
            return None, name
        if owner not in self.elements:
            hint = registry.suggestion(owner, list(self.elements))
            raise HandlerError(f"no element named '{owner}'{hint}", 510)
        return self.elements[owner], name

    def _read_global(self, name: str) -> str:
        if name == "version":
            return "xiatb"
        if name == "list":
            return listing([str(len(self.elements)), *self.elements])
        if name == "classes":
            return listing(registry.all_classes())
        if name == "config":
            return self.text
        if name == "flatconfig":
            return self.flat.to_text()
        if name == "requirements":
            return listing(self.flat.requirements)
        if name == "handlers":
            return listing(f"{handler}\tr" for handler in GLOBAL_HANDLERS)
        raise HandlerError(f"no global read handler '{name}'", 511)


GLOBAL_HANDLERS = ("version", "list", "classes", "config", "flatconfig", "requirements", "handlers")


def _nothing_new() -> None:
    """The elements' counters are always up to date: they do all the work."""


def _argument_place(flat: FlatElement, error: ConfigError) -> Any:
    """Where the argument that an error is about starts."""
    if error.index is not None and error.index < len(flat.args):
        return flat.args[error.index].where
    return flat.config_where


__all__ = ["ClickFileError", "Router", "flatten_text"]
