"""Finds element classes by name: one class a module in `xiatb.click.elements`, imported when first used."""

from __future__ import annotations

import importlib

from xiatb.click.element import Element

_extra: dict[str, type[Element]] = {}


def register(cls: type[Element]) -> type[Element]:
    """Make a class of one's own usable in configurations; may be used as a decorator."""
    _extra[cls.__name__] = cls
    return cls


def find(name: str) -> type[Element] | None:
    """The element class of that exact name, None when there is none."""
    if name in _extra:
        return _extra[name]
    if not name.isalnum():
        return None
    module_name = f"xiatb.click.elements.{name.lower()}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        return None
    cls = getattr(module, name, None)
    return cls if isinstance(cls, type) and issubclass(cls, Element) else None


def all_classes(registered: bool = True) -> dict[str, type[Element]]:
    """Every element class there is, by name, sorted; without those of `register` when so wanted."""
    import pkgutil

    from xiatb.click import elements

    found = dict(_extra) if registered else {}
    for info in pkgutil.iter_modules(elements.__path__):
        module = importlib.import_module(f"xiatb.click.elements.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Element) and value.__module__ == module.__name__:
                found[value.__name__] = value
    return {name: cls for name, cls in sorted(found.items()) if not name.startswith("_")}


def suggestion(name: str, known: list[str]) -> str:
    """ " (did you mean X?)" when one of `known` looks like `name`, else nothing."""
    import difflib  # only when something is wrong: start-up counts in a guest

    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""
