"""The links of a lab that only lose frames, where there is no netem: their eBPF programs and maps.

A map lives for as long as its program is attached. Its number is noted in a file beside those of the delay
lines, so whoever asks finds it, in whatever process.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from xiatb.fastpath import bpf
from xiatb.lab import lossprogram, netlink, wire
from xiatb.lab.context import Context
from xiatb.lab.keys import KeyRing
from xiatb.lab.netlink import LinkError
from xiatb.lab.plan import Impairment, LinkPlan

_NUMBERS, _STATE = (struct.pack("=I", key) for key in (lossprogram.NUMBERS, lossprogram.STATE))
WAYS = ("forward", "backward")


class Losses:
    """Losing links of one lab. The caller sees to it that nothing else forwards at the link's middle."""

    def __init__(self, context: Context, middles: Path) -> None:
        self._context = context
        self._middles = middles

    def set(self, link: LinkPlan, forward: Impairment, backward: Impairment, *, running: bool) -> None:
        """From now on frames are lost by these numbers. `running`: the link's programs lose frames already;
        they go on counting. Raises LinkError."""
        for way, one in zip(WAYS, (forward, backward), strict=True):
            try:
                with self._map(link, way, running) as descriptor:
                    table = bpf.Map(descriptor, 4, lossprogram.VALUE.size)
                    table.update(_NUMBERS, lossprogram.numbers(one))
                    if not running:
                        table.update(_STATE, lossprogram.fresh_state(self._seed(link, way)))
                        self._attach(link, way, descriptor)
            except OSError as error:
                raise LinkError(f"{link.name}: eBPF refused: {error.strerror}") from error

    def counters(self, link: LinkPlan) -> dict[str, Any]:
        """{"forward", "backward"}: {"taken", "lost"} frames since loss was first set. Raises LinkError."""
        found = {}
        for way in WAYS:
            try:
                with self._map(link, way, True) as descriptor:
                    state = bpf.Map(descriptor, 4, lossprogram.VALUE.size).lookup(_STATE)
            except OSError as error:
                raise LinkError(f"{link.name}: no counters: {error.strerror}") from error
            found[way] = lossprogram.counters(state)._asdict()
        return found

    @contextlib.contextmanager
    def _map(self, link: LinkPlan, way: str, there: bool) -> Iterator[int]:
        """Descriptor of a direction's map: the one that is in use, or a new one. Raises OSError."""
        note = self._context.paths.links / f"{link.index}-{way}.map"
        if there:
            descriptor = bpf.map_by_id(json.loads(note.read_text()))
        else:
            descriptor = bpf.new_array(lossprogram.VALUE.size, 2)
            note.write_text(f"{bpf.map_id(descriptor)}\n")
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _attach(self, link: LinkPlan, way: str, descriptor: int) -> None:
        ends = wire.middle_ports(link.index)
        source, target = ends if way == "forward" else ends[::-1]
        program = partial(lossprogram.loss_program, map_fd=descriptor)
        with netlink.routes(self._middles) as socket_:
            wire.forward(socket_, source, target, program)

    def _seed(self, link: LinkPlan, way: str) -> int:
        plan = self._context.plan
        return 2 * KeyRing(plan.seed, plan.lab).number("link", str(link.index)) + WAYS.index(way)
