"""An element that does nothing."""

from __future__ import annotations

from xiatb.click.element import Element
from xiatb.click.flows import Trace


class Null(Element):
    """Gives packets on unchanged; a place holder with a name."""

    __slots__ = ()

    def trace(self, port: int, trace: Trace) -> int | None:
        """Nothing is done."""
        return 0
