"""A byte transfer over a simulated path, with whatever should happen on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.transport.simpath import Path, Simulation
from xiatb.transport.config import StreamConfig
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.stream import State, Stream


class Transfer:
    """`size` random bytes from `a` to `b`, both ends closed in order at the end."""

    def __init__(
        self, size: int, *, seed: int = 1, config: dict[str, Any] | None = None, **path: Any
    ) -> None:
        self.sim = Simulation(seed)
        self.sim.path = Path(**path)
        self.a = self.sim.add(1, "a", StreamConfig(**(config or {})))
        self.b = self.sim.add(2, "b", StreamConfig(**(config or {})))
        self.b.listen()
        self.data = self.sim.rng.randbytes(size)
        self.got = bytearray()
        self.sent = 0
        self.started = self.sim.now
        self.stream = self.a.connect(self.b.local, self.sim.now)
        self.peer: Stream | None = None
        self.hook: Callable[[Transfer], None] | None = None
        self.finished = 0.0

    def pump(self) -> bool:
        """The two applications; True when all is over."""
        stream = self.stream
        if stream.error:
            raise stream.error
        if stream.state >= State.ESTABLISHED and self.sent < len(self.data):
            self.sent += stream.write(memoryview(self.data)[self.sent : self.sent + 65536])
            if self.sent == len(self.data):
                stream.shutdown()
        if self.peer is None:
            self.peer = self.b.accept()
        if self.peer is not None:
            self.got += self.peer.read()
            if self.peer.at_eof:
                self.finished = self.finished or self.sim.now
                self.peer.shutdown()
        if self.hook is not None:
            self.hook(self)
        return self.peer is not None and self.peer.at_eof and stream.at_eof

    def run(self, seconds: float = 900.0) -> Transfer:
        """Run to the end; asserts completion, byte-exactness and that nothing is left behind."""
        assert self.sim.run(seconds, self.pump), (self.stream.state, self.stream.stats())
        assert self.got == self.data
        self.sim.run(60.0)
        assert not self.a.streams
        assert not self.b.streams
        return self

    @property
    def goodput(self) -> float:
        """Bits of payload a second, the handshake included."""
        return len(self.data) * 8 / (self.finished - self.started)


def connected(sim: Simulation, a: Endpoint, b: Endpoint) -> tuple[Stream, Stream]:
    """An open connection from `a` to `b`, which listens."""
    b.listen()
    stream = a.connect(b.local, sim.now)
    assert sim.run(30.0, lambda: b.acceptable and stream.state is State.ESTABLISHED)
    peer = b.accept()
    assert peer is not None
    return stream, peer


def pair(
    seed: int = 1, config: dict[str, Any] | None = None, **path: Any
) -> tuple[Simulation, Endpoint, Endpoint]:
    """A simulation with endpoints at the places a and b."""
    sim = Simulation(seed)
    sim.path = Path(**path)
    return (
        sim,
        sim.add(1, "a", StreamConfig(**(config or {}))),
        sim.add(2, "b", StreamConfig(**(config or {}))),
    )
