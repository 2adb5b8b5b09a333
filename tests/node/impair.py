"""A bad link: `python -m tests.node.impair DEV DEV SEED LOSS DUPLICATION REORDERING` forwards frames.

LOSS, DUPLICATION and REORDERING are probabilities. A reordered frame goes out after 1 to 20 later ones,
or after 5 ms when no more come. On SIGTERM the counts go to stdout as a JSON line.
"""

from __future__ import annotations

import json
import random
import select
import signal
import sys
import time

from xiatb.node.packet_socket import PacketSocket

ALL = 3
HOLD = 0.005


class Direction:
    """Frames from one device to the other."""

    def __init__(
        self, source: PacketSocket, target: PacketSocket, rng: random.Random, odds: list[float]
    ) -> None:
        self.source = source
        self.target = target
        self.rng = rng
        self.loss, self.duplication, self.reordering = odds
        self.held: list[tuple[int, float, bytes]] = []
        self.number = 0
        self.counts = {"frames": 0, "lost": 0, "duplicated": 0, "reordered": 0}

    def take(self, frame: memoryview) -> None:
        self.number += 1
        self.counts["frames"] += 1
        dice = self.rng.random()
        if dice < self.loss:
            self.counts["lost"] += 1
        elif dice < self.loss + self.reordering:
            self.counts["reordered"] += 1
            self.held.append((self.number + self.rng.randint(1, 20), time.monotonic() + HOLD, bytes(frame)))
        else:
            self.target.send(frame)
            if dice < self.loss + self.reordering + self.duplication:
                self.counts["duplicated"] += 1
                self.target.send(frame)
        if self.held:
            self.release()

    def release(self) -> None:
        now = time.monotonic()
        due = [held for held in self.held if held[0] <= self.number or held[1] <= now]
        for held in due:
            self.target.send(held[2])
            self.held.remove(held)


def main() -> None:
    devices = [PacketSocket(name, ALL, receive_buffer=16 << 20) for name in sys.argv[1:3]]
    # Each way has dice of its own: what befalls its frames then does not depend on how the two ways mix.
    dice = [random.Random(f"{sys.argv[3]} {way}") for way in range(2)]
    odds = [float(text) for text in sys.argv[4:7]]
    ways = [
        Direction(devices[0], devices[1], dice[0], odds),
        Direction(devices[1], devices[0], dice[1], odds),
    ]
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    by_fd = {way.source.fileno(): way for way in ways}
    poll = select.poll()
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    while not ended:
        holding = any(way.held for way in ways)
        for fd, _ in poll.poll(HOLD * 1000 if holding else 500):
            by_fd[fd].source.drain(by_fd[fd].take)
        for way in ways:
            way.release()
    sys.stdout.write(json.dumps([way.counts for way in ways]) + "\n")


if __name__ == "__main__":
    main()
