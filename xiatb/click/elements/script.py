"""Handlers written when the router starts."""

from __future__ import annotations

from typing import Any

from xiatb.click.args import REQUIRED, Arg, to_text
from xiatb.click.context import Context
from xiatb.click.element import Element, shows
from xiatb.click.errors import ConfigError
from xiatb.errors import XiatbError


def _instruction(text: str) -> tuple[str, str]:
    words = to_text(text).split(None, 2)
    if len(words) < 2 or words[0] != "write" or "." not in words[1]:
        raise ConfigError(f"'{text}' is not 'write ELEMENT.HANDLER [VALUE]'")
    return words[1], words[2] if len(words) > 2 else ""


class Script(Element):
    """Once the router is up, writes handlers in order: each INSTRUCTION is `write ELEMENT.HANDLER [VALUE]`.

    Quote instructions whose value holds commas. One that is refused is logged; the rest goes on. (Of
    Click's Script this is the part that sets a router up.)
    """

    __slots__ = ("failed", "instruction")
    PORTS = "0/0"
    PROCESSING = "push"
    ARGS = (Arg("INSTRUCTION", _instruction, "`write ELEMENT.HANDLER [VALUE]`", REQUIRED, rest=True),)
    READ = {"failed": shows("failed", "instructions that were refused")}
    instruction: list[tuple[str, str]]

    def configure(self, args: dict[str, Any]) -> None:
        """Take the instructions."""
        super().configure(args)
        self.failed = 0

    def initialize(self, ctx: Context) -> None:
        """Run when all elements are ready."""
        self.sched.wake(self._run)

    def _run(self) -> None:
        for handler, value in self.instruction:
            try:
                self.sched.write_handler(handler, value)
            except XiatbError as error:
                self.failed += 1
                self.ctx.log("error", f"{self.name}: write {handler}: {error.message}")
