"""Descriptions of element classes, made from the classes themselves: for the terminal, for files, for
programs.
"""

from __future__ import annotations

import inspect
from typing import Any

from xiatb.click.args import REQUIRED, Arg
from xiatb.click.element import Element

_KINDS = {"h": "push", "l": "pull", "a": "push or pull"}
_SHORT = {"push": "h/h", "pull": "l/l", "agnostic": "a/a"}
_STANDARD = "class, name, config, ports, handlers"


def summary(cls: type[Element]) -> str:
    """What it does, in one sentence."""
    text = " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]


def usage(cls: type[Element]) -> str:
    """How it is written: `Queue([CAPACITY])`."""
    words = []
    for arg in cls.ARGS:
        word = arg.name if arg.positional else f"{arg.name} value"
        word = f"{word}, ..." if arg.rest else word
        words.append(word if arg.default is REQUIRED else f"[{word}]")
    return f"{cls.__name__}({', '.join(words)})" if words else cls.__name__


def ports(cls: type[Element]) -> str:
    """Its inputs and outputs in words."""
    codes = _SHORT.get(cls.PROCESSING, cls.PROCESSING).split("/")
    sides = []
    for count, kinds, word in zip(cls.PORTS.split("/"), codes, ("input", "output"), strict=True):
        sides.append(_side(count, kinds, word))
    return ", ".join(sides)


def _side(count: str, kinds: str, word: str) -> str:
    if count == "0":
        return f"no {word}"
    if count == "-":
        amount = f"any number of {word}s"
    elif count == "=":
        amount = f"as many {word}s"
    elif count.endswith("-"):
        amount = f"{count[:-1]} or more {word}s"
    else:
        amount = f"{count.replace('-', ' or ')} {word}{'' if count == '1' else 's'}"
    return f"{amount} ({', '.join(dict.fromkeys(_KINDS[kind] for kind in kinds))})"


def default_text(arg: Arg) -> str:
    """The default of an argument in words."""
    if arg.default is REQUIRED:
        return "required"
    if arg.default is None or arg.default == () or arg.default == "":
        return "none"
    if isinstance(arg.default, bytes):
        return arg.default.hex(":")
    return str(arg.default).lower() if isinstance(arg.default, bool) else str(arg.default)


def handlers(cls: type[Element]) -> list[tuple[str, str, str]]:
    """(name, `r`/`w`/`rw`, what it is) for every handler of its own, sorted."""
    found = []
    for name in sorted({*cls.READ, *cls.WRITE}):
        mode = ("r" if name in cls.READ else "") + ("w" if name in cls.WRITE else "")
        texts = [handler[name].doc for handler in (cls.READ, cls.WRITE) if name in handler]
        found.append((name, mode, "; written: ".join(texts) if mode == "rw" else texts[0]))
    return found


def text(cls: type[Element]) -> str:
    """A description for the terminal."""
    lines = [usage(cls), "", inspect.cleandoc(cls.__doc__ or ""), "", f"Ports: {ports(cls)}"]
    if cls.ARGS:
        lines += ["", "Arguments:"]
        width = max(len(arg.name) for arg in cls.ARGS)
        lines += [f"  {arg.name:{width}}  {arg.doc} ({default_text(arg)})" for arg in cls.ARGS]
    found = handlers(cls)
    if found:
        lines += ["", "Handlers:"]
        width = max(len(name) for name, _, _ in found)
        lines += [f"  {name:{width}}  {mode:2}  {doc}" for name, mode, doc in found]
    return "\n".join(lines) + "\n"


def markdown(cls: type[Element]) -> str:
    """A description as a Markdown page."""
    lines = [f"# {cls.__name__}", "", f"    {usage(cls)}", "", inspect.cleandoc(cls.__doc__ or "")]
    lines += ["", f"Ports: {ports(cls)}."]
    if cls.ARGS:
        lines += ["", "| argument | meaning | default |", "|---|---|---|"]
        lines += [f"| `{arg.name}` | {_cell(arg.doc)} | {_cell(default_text(arg))} |" for arg in cls.ARGS]
    found = handlers(cls)
    if found:
        lines += ["", "| handler | | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {mode} | {_cell(doc)} |" for name, mode, doc in found]
    lines += ["", f"Besides these every element has the read handlers {_STANDARD}."]
    return "\n".join(lines) + "\n"


def index_markdown(classes: dict[str, type[Element]]) -> str:
    """The page that lists all elements."""
    lines = [
        "# Elements",
        "",
        "Made by `scripts/gen-element-docs` from the classes in `xiatb/click/elements/`.",
        "",
    ]
    lines += ["| element | |", "|---|---|"]
    lines += [f"| [{name}]({name}.md) | {_cell(summary(cls))} |" for name, cls in classes.items()]
    return "\n".join(lines) + "\n"


def pages(classes: dict[str, type[Element]]) -> dict[str, str]:
    """File name -> contents of all pages."""
    return {"README.md": index_markdown(classes)} | {f"{n}.md": markdown(cls) for n, cls in classes.items()}


def data(cls: type[Element]) -> dict[str, Any]:
    """The same as a JSON object."""
    return {
        "name": cls.__name__,
        "summary": summary(cls),
        "description": inspect.cleandoc(cls.__doc__ or ""),
        "ports": cls.PORTS,
        "processing": cls.PROCESSING,
        "arguments": [
            {"name": a.name, "doc": a.doc, "required": a.default is REQUIRED, "default": default_text(a)}
            for a in cls.ARGS
        ],
        "handlers": [{"name": name, "mode": mode, "doc": doc} for name, mode, doc in handlers(cls)],
    }


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
