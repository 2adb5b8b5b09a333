"""Lets a random part of the packets through."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import Arg, to_bool, to_probability
from xiatb.click.context import Context
from xiatb.click.element import Element, Receiver, WriteHandler, shows, zeroes
from xiatb.click.errors import ConfigError
from xiatb.click.packet import Packet


class RandomSample(Element):
    """Lets each packet through with probability SAMPLE, or drops it with probability DROP (give one of
    them; a number from 0 to 1 or a percentage). What is dropped goes to output 1 when that is
    connected. The random numbers are those of the node's seed.
    """

    __slots__ = ("active", "count", "drop", "drops", "other", "sample")
    PORTS = "1/1-2"
    PROCESSING = "a/ah"
    ARGS = (
        Arg("SAMPLE", to_probability, "probability of going through", None),
        Arg("DROP", to_probability, "probability of being dropped", None, positional=False),
        Arg("ACTIVE", to_bool, "false lets everything through", True, positional=False),
    )
    READ = {
        "sampling_prob": shows("sample", "probability of going through"),
        "drop_prob": shows("drop", "probability of being dropped"),
        "count": shows("count", "packets seen"),
        "drops": shows("drops", "packets dropped"),
        "active": shows("active", "whether it samples"),
    }
    WRITE = {
        "sampling_prob": WriteHandler(
            "set it", lambda element, value: element.set_drop(1 - to_probability(value))
        ),
        "drop_prob": WriteHandler("set it", lambda element, value: element.set_drop(to_probability(value))),
        "active": WriteHandler("turn it on or off", lambda element, value: element.turn(value)),
        "reset": zeroes("count", "drops"),
    }
    sample: float
    drop: float
    active: bool

    def configure(self, args: dict[str, Any]) -> None:
        """Take the probability."""
        if (args["sample"] is None) == (args["drop"] is None):
            raise ConfigError("expected either SAMPLE or DROP")
        super().configure(args)
        self.set_drop(1 - args["sample"] if args["drop"] is None else args["drop"])
        self.count = self.drops = 0
        self.other: Receiver | None = None

    def initialize(self, ctx: Context) -> None:
        """See whether dropped packets are wanted."""
        self.other = self.optional_output(1)

    def set_drop(self, probability: float) -> None:
        """Set both probabilities."""
        self.drop = probability
        self.sample = 1 - probability

    def turn(self, value: str) -> None:
        """Write handler `active`."""
        self.active = to_bool(value.strip())

    def simple_action(self, p: Packet) -> Packet | None:
        """Throw the dice."""
        self.count += 1
        if not self.active or self.ctx.rng.random() >= self.drop:
            return p
        self.drops += 1
        if self.other is not None:
            self.other(p)
        return None
