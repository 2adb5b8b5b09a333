"""An element that does nothing."""

from __future__ import annotations

from xiatb.click.element import Element


class Null(Element):
    """Gives packets on unchanged; a place holder with a name."""

    __slots__ = ()
