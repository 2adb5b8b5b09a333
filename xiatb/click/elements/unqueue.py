"""From pull to push, as fast as packets come."""

from __future__ import annotations

from xiatb.click.args import Arg, to_positive
from xiatb.click.drain import Drain


class Unqueue(Drain):
    """Pulls packets whenever there are some and pushes them on, BURST in one go."""

    __slots__ = ("burst",)
    ARGS = (Arg("BURST", to_positive, "packets in one go", 64),)
    burst: int

    def run(self) -> None:
        """Move up to BURST packets."""
        for _ in range(self.burst):
            p = self.in0()
            if p is None:
                return
            self.out0(p)
        self.wake()
