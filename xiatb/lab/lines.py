"""The delay-line processes of a lab, one per link that needs one: started, told, ended."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from xiatb.errors import DeadlineError
from xiatb.lab import wire
from xiatb.lab.client import ControlClient
from xiatb.lab.context import Context
from xiatb.lab.keys import KeyRing
from xiatb.lab.paths import NETNS_ROOT, netns_name
from xiatb.lab.plan import Impairment, LinkPlan
from xiatb.lab.readiness import ReadyPipe

READY = 15.0
_ANSWER = 5.0


class Lines:
    """Starts lines on standby; `go` sets one to work once the kernel has stopped to forward."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def runs(self, link: LinkPlan) -> bool:
        """Whether the link's line is alive."""
        found = self.context.state.processes.get(line_title(link))
        return found is not None and found.alive()

    def start_all(self, links: list[LinkPlan]) -> None:
        """Start the lines of several links at once, each with its plan's impairments."""
        pipes = [(link, self._launch(link, link.forward, link.backward)) for link in links]
        for link, pipe in pipes:
            self._await(link, pipe)

    def start(self, link: LinkPlan, forward: Impairment, backward: Impairment) -> None:
        """Start one line and wait until it is ready. Raises XiatbError, DeadlineError."""
        self._await(link, self._launch(link, forward, backward))

    def set(self, link: LinkPlan, forward: Impairment, backward: Impairment) -> None:
        """New numbers; frames that wait in the line stay there."""
        self._ask(link, "set", **_directions(forward, backward))

    def go(self, link: LinkPlan) -> None:
        """From now on the line forwards what comes in; nothing changes when it does already."""
        self._ask(link, "go")

    def counters(self, link: LinkPlan) -> dict[str, Any]:
        """See `delayline.Line.counters`."""
        return self._ask(link, "stats")

    def drain(self, link: LinkPlan, timeout: float) -> None:
        """Pass frames at once until none waits any more, then take no more."""
        self.set(link, Impairment(), Impairment())
        deadline = time.monotonic() + timeout
        while any(one["waiting_bytes"] for one in self.counters(link).values()):
            if time.monotonic() > deadline:
                raise DeadlineError(f"{line_title(link)}: frames still wait after {timeout:g} s")
            time.sleep(0.005)
        self._ask(link, "halt")

    def stop(self, link: LinkPlan) -> None:
        """End the process."""
        what = line_title(link)
        self.context.state.processes.pop(what, None)
        child = self.context.children.pop(what, None)
        if child is None:
            return
        child.terminate()
        try:
            child.wait(3.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(3.0)

    def _launch(self, link: LinkPlan, forward: Impairment, backward: Impairment) -> ReadyPipe:
        context, paths = self.context, self.context.paths
        self.stop(link)
        config = paths.links / f"{link.index}.json"
        seed = KeyRing(context.plan.seed, context.plan.lab).number("link", str(link.index))
        config.write_text(
            json.dumps(
                {
                    "link": link.name,
                    "ports": wire.middle_ports(link.index),
                    "mtu": link.mtu,
                    "seed": seed,
                    "control": str(self._socket(link)),
                    **_directions(forward, backward),
                }
            )
        )
        pipe = ReadyPipe()
        netns = NETNS_ROOT / netns_name(context.plan.lab, wire.ALL_LINKS)
        context.start(
            ["nsenter", f"--net={netns}", "--", sys.executable, "-m", "xiatb.lab.delayline", str(config)],
            what=line_title(link),
            log=self._log(link),
            env={**os.environ, **pipe.environment()},
            pass_fds=[pipe.writer],
        )
        pipe.close_writer()
        return pipe

    def _await(self, link: LinkPlan, pipe: ReadyPipe) -> None:
        what = line_title(link)
        try:
            pipe.wait(self.context.children[what], what, self._log(link), time.monotonic() + READY)
        finally:
            pipe.close()

    def _ask(self, link: LinkPlan, op: str, **fields: Any) -> dict[str, Any]:
        with ControlClient(self._socket(link), timeout=_ANSWER) as client:
            return client.request(op, params=fields)

    def _socket(self, link: LinkPlan) -> Path:
        return self.context.paths.links / f"{link.index}.sock"

    def _log(self, link: LinkPlan) -> Path:
        return self.context.paths.links / f"{link.index}.log"


def line_title(link: LinkPlan) -> str:
    """What the process is called in state files."""
    return f"delay line {link.name}"


def _directions(forward: Impairment, backward: Impairment) -> dict[str, Any]:
    return {"forward": dataclasses.asdict(forward), "backward": dataclasses.asdict(backward)}
