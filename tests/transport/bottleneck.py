"""Several senders behind one bottleneck of the simulated path, each writing as much as it may."""

from __future__ import annotations

from tests.transport.simpath import Path, Simulation
from xiatb.transport.config import StreamConfig
from xiatb.transport.stream import Stream


class Bottleneck:
    """Senders with the given controllers, started `stagger` seconds apart, one receiver."""

    def __init__(
        self, controls: list[str], *, mtu: int = 1500, buffer: int = 8 << 20, stagger: float = 0.1,
        rate: float = 100e6, delay: float = 0.0125, queue: int = 200, loss: float = 0.0,
    ) -> None:  # fmt: skip
        sim = self.sim = Simulation(5)
        sim.path = Path(delay=delay)
        sim.paths[b"sink".ljust(20, b"\0")] = Path(rate=rate, delay=delay, queue=queue, loss=loss)
        self.sink = sim.add(99, "sink", StreamConfig(mtu=mtu, recv_buffer=buffer))
        self.sink.listen()
        self.streams: list[Stream] = []
        self.peers: dict[bytes, Stream] = {}
        self.got: dict[bytes, int] = {}
        self.block = bytes(1 << 16)
        for i, control in enumerate(controls):
            config = StreamConfig(mtu=mtu, congestion=control, send_buffer=buffer)
            sender = sim.add(i + 1, f"sender{i}", config)
            self.got[sender.sid.key] = 0
            self.streams.append(sender.connect(self.sink.local, sim.now))
            sim.run(stagger, self.pump)

    def pump(self) -> bool:
        """The applications."""
        for stream in self.streams:
            while stream.send_space >= len(self.block):
                stream.write(self.block)
        while (peer := self.sink.accept()) is not None:
            self.peers[peer.remote_sid.key] = peer
        for key, peer in self.peers.items():
            self.got[key] += len(peer.read())
        return False

    def measure(self, seconds: float) -> list[float]:
        """Mbit/s of payload of each sender over the next `seconds`."""
        before = list(self.got.values())
        self.sim.run(seconds, self.pump)
        return [(now - then) * 8e-6 / seconds for now, then in zip(self.got.values(), before, strict=True)]


def jain(shares: list[float]) -> float:
    """Jain's fairness index."""
    return float(sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares)))
