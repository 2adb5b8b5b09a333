"""What every element of a router graph is: ports, arguments, handlers.

A class says what it is by class attributes, so that checks, documentation and tools can read it:

PORTS       "inputs/outputs"; each `N`, `N-M`, `N-` or `-` (any number); outputs `=` means as many as inputs.
PROCESSING  "inputs/outputs"; each a letter a port, the last one repeats: h push, l pull, a agnostic;
            `push`, `pull` and `agnostic` are short for h/h, l/l and a/a.
ARGS        the arguments (see args.Arg); their values become attributes before `configure` runs.
READ/WRITE  handlers by name.

Push elements define `receive(packet)` (one input) or `push(port, packet)`; pull elements `pull(port)`;
agnostic ones `simple_action(packet)`, which gives the packet on or None. Outputs are callables in
`outs`, `out0` the first of them; pull inputs are callables in `ins`, `in0` the first. All of them are
resolved once, before `initialize`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from xiatb.click.args import Arg
from xiatb.click.context import Context, Timer
from xiatb.click.errors import HandlerError
from xiatb.click.packet import Packet

if TYPE_CHECKING:
    from xiatb.click.flows import Trace
    from xiatb.click.scheduler import Scheduler

Receiver = Callable[[Packet], None]
Puller = Callable[[], Packet | None]


class ReadHandler(NamedTuple):
    """A value to read: `read(element, argument)` gives its text."""

    doc: str
    read: Callable[[Any, str], str]


class WriteHandler(NamedTuple):
    """Something to write: `write(element, value)` acts, or raises an XiatbError to refuse."""

    doc: str
    write: Callable[[Any, str], None]


def shows(attribute: str, doc: str) -> ReadHandler:
    """A read handler that gives an attribute of the element as text."""
    return ReadHandler(doc, lambda element, _: str(getattr(element, attribute)))


def zeroes(*attributes: str, doc: str = "set the counters to 0") -> WriteHandler:
    """A write handler that sets attributes of the element to 0."""

    def write(element: Any, _: str) -> None:
        for attribute in attributes:
            setattr(element, attribute, 0)

    return WriteHandler(doc, write)


class Element:
    """Base of all elements."""

    __slots__ = (
        "class_name", "config", "ctx", "in0", "ins", "n_in", "n_out", "name", "out0", "outs",
        "ports", "sched", "targets", "upstream",
    )  # fmt: skip

    PORTS: ClassVar[str] = "1/1"
    PROCESSING: ClassVar[str] = "agnostic"
    ARGS: ClassVar[tuple[Arg, ...]] = ()
    READ: ClassVar[dict[str, ReadHandler]] = {}
    WRITE: ClassVar[dict[str, WriteHandler]] = {}

    ctx: Context
    sched: Scheduler

    def __init__(self, name: str) -> None:
        self.name = name
        self.class_name = type(self).__name__
        self.config = ""
        self.n_in = 0
        self.n_out = 0
        self.outs: list[Receiver] = []
        self.ins: list[Puller] = []
        self.out0: Receiver = _nowhere
        self.in0: Puller = _nothing
        self.upstream: list[list[Element]] = []
        self.targets: list[tuple[Element, int]] = []
        self.ports: list[str] = []

    # -- life -----------------------------------------------------------------------------------
    def configure(self, args: dict[str, Any]) -> None:
        """Take the bound arguments (name in lower case -> value). Raises ConfigError."""
        for name, value in args.items():
            setattr(self, name, value)

    def ports_wanted(self) -> tuple[int | None, int | None]:
        """(inputs, outputs) that the configuration asks for; None where PORTS alone decides."""
        return None, None

    def initialize(self, ctx: Context) -> None:
        """The graph is linked and the world is there; raises an XiatbError when it cannot work in it."""

    def cleanup(self) -> None:
        """The router goes; close what is open."""

    # -- packets --------------------------------------------------------------------------------
    def receive(self, p: Packet) -> None:
        """A packet arrives by push."""
        kept = self.simple_action(p)
        if kept is not None:
            self.out0(kept)

    def push(self, port: int, p: Packet) -> None:
        """A packet arrives by push at input `port`."""
        self.receive(p)

    def pull(self, port: int) -> Packet | None:
        """Downstream asks output `port` for a packet."""
        p = self.in0()
        return None if p is None else self.simple_action(p)

    def simple_action(self, p: Packet) -> Packet | None:
        """What an agnostic element does to a packet; None drops it."""
        return p

    def receiver(self, port: int) -> Receiver:
        """The callable that pushes into input `port`."""
        if type(self).push is Element.push:
            return self.receive
        return partial(self.push, port)

    def puller(self, port: int) -> Puller:
        """The callable that pulls from output `port`."""
        return partial(self.pull, port)

    def listen(self, fn: Callable[[], None]) -> None:
        """Call `fn` whenever a pull from this element may give a packet after it gave none."""
        for sources in self.upstream:
            for source in sources:
                source.listen(fn)

    def optional_output(self, port: int) -> Receiver | None:
        """The receiver at output `port`, None when it is not connected."""
        return self.outs[port] if port < self.n_out else None

    # -- flows (see flows.py) -------------------------------------------------------------------
    def trace(self, port: int, trace: Trace) -> int | None:
        """Do to `trace.packet`, that came by input `port`, what is done to every packet of its flow, and
        give the number of the output that all of them leave by. None: this element must see each packet.

        Nothing but `trace` may change. An element whose answer can change must call `forget_flows` then;
        what is written to handlers has that effect by itself.
        """
        return None

    def shortcut(self, source: Element) -> Callable[[list[bytearray]], None] | None:
        """A function for frames received by `source`, which pushes into this element; None: push packets."""
        return None

    def count_flow(self, packets: int, octets: int) -> None:
        """So many packets, of so many octets with Ethernet headers, went a way that `trace` has shown."""

    def forget_flows(self) -> None:
        """What this element does to packets has changed."""
        self.sched.forget_flows()

    def timer(self, delay: float, fn: Callable[[], None]) -> Timer:
        """Call `fn` in `delay` seconds and let the graph work off what that starts."""
        return self.ctx.call_at(self.ctx.now() + delay, partial(self.sched.enter_task, fn))

    # -- handlers -------------------------------------------------------------------------------
    def read_handlers(self) -> dict[str, Callable[[str], str]]:
        """Name -> function of the handler argument (usually empty) that gives the text."""
        found: dict[str, Callable[[str], str]] = {
            "class": lambda _: self.class_name,
            "name": lambda _: self.name,
            "config": lambda _: self.config,
            "ports": lambda _: listing(self.ports),
            "handlers": lambda _: self._handler_list(),
        }
        for name, handler in self.READ.items():
            found[name] = partial(handler.read, self)
        return found

    def write_handlers(self) -> dict[str, Callable[[str], None]]:
        """Name -> function that takes the written text."""
        return {name: partial(handler.write, self) for name, handler in self.WRITE.items()}

    def _handler_list(self) -> str:
        reads, writes = set(self.read_handlers()), set(self.write_handlers())
        return listing(
            f"{name}\t{'r' if name in reads else ''}{'w' if name in writes else ''}"
            for name in sorted(reads | writes)
        )

    def __repr__(self) -> str:
        return f"<{self.name} :: {self.class_name}>"


def _nowhere(p: Packet) -> None:
    """Where an output leads before the graph is linked."""


def _nothing() -> Packet | None:
    """What a pull input gives before the graph is linked."""
    return None


def listing(lines: Iterable[str]) -> str:
    """The value of a handler that lists things: every line ended, as Click's tools expect."""
    return "".join(line + "\n" for line in lines)


def number(value: str, what: str) -> int:
    """A handler value as a whole number; HandlerError otherwise."""
    try:
        return int(value.strip(), 0)
    except ValueError:
        raise HandlerError(f"{what} is not a whole number: {value.strip()!r}") from None
