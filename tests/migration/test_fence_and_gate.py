"""The hand-over's two tools: the gate that finds libvirt's Finish call, and the fence around the process."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiatb.errors import XiatbError
from xiatb.migration.fence import Fence
from xiatb.migration.rpcgate import PROGRAM, FinishGate, RpcWatch


def packet(procedure: int, kind: int = 0, serial: int = 1, status: int = 0, body: bytes = b"") -> bytes:
    return struct.pack(">7I", 28 + len(body), PROGRAM, 1, procedure, kind, serial, status) + body


FINISH = packet(306, serial=9, body=b"cookie!!" + struct.pack(">II", 3, 0))
CANCELLED = packet(306, serial=9, body=b"cookie!!" + struct.pack(">II", 3, 1))


class Log:
    def __init__(self, refuse: bool = False) -> None:
        self.calls: list[str] = []
        self.refuse = refuse

    async def finish(self) -> None:
        self.calls.append("finish")
        if self.refuse:
            raise XiatbError("no")

    def answer(self, ok: bool) -> None:
        self.calls.append(f"answer {ok}")


def feed(gate: FinishGate, *pieces: bytes) -> None:
    async def run() -> None:
        for piece in pieces:
            await gate.outgoing(piece)

    asyncio.run(run())


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_finish_is_found_however_it_is_cut(cuts: list[int]) -> None:
    stream = packet(303, body=b"x" * 50) + packet(60, serial=2) + FINISH
    log = Log()
    pieces, at = [], 0
    for size in cuts:
        pieces.append(stream[at : at + size])
        at += size
    feed(FinishGate(log.finish, log.answer), *pieces, stream[at:])
    assert log.calls == ["finish"]


def test_the_call_is_held_until_its_last_byte() -> None:
    log = Log()
    gate = FinishGate(log.finish, log.answer)
    feed(gate, FINISH[:-1])
    assert log.calls == []
    feed(gate, FINISH[-1:])
    assert log.calls == ["finish"]


def test_refusal_answer_and_what_is_no_hand_over() -> None:
    with pytest.raises(XiatbError):
        feed(FinishGate(Log(refuse=True).finish, Log().answer), FINISH)
    log = Log()
    gate = FinishGate(log.finish, log.answer)
    feed(gate, CANCELLED, packet(60), packet(306, kind=1))
    assert log.calls == []
    feed(gate, FINISH)
    gate.incoming(packet(306, kind=1, serial=8) + packet(306, kind=1, serial=9, status=1, body=b"oops"))
    gate.incoming(packet(306, kind=1, serial=9))
    assert log.calls == ["finish", "answer False"]


@given(st.binary(max_size=400))
def test_hostile_bytes_never_raise_and_are_bounded(data: bytes) -> None:
    watch = RpcWatch()
    watch.feed(data)
    watch.feed(data)
    assert len(watch._head) <= 28


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "g.pid").write_text(f"{child.pid}\n")
    yield child
    child.kill()
    child.wait(10)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_state(pid: int, wanted: str) -> None:
    for _ in range(100_000):
        if state(pid) in wanted:
            return
    raise AssertionError(state(pid))


def test_fence_freezes_thaws_and_kills(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    fence = Fence.of("g", tmp_path)
    fence.freeze()
    assert state(process.pid) == "T", "at once, not some time later"
    Fence(fence.process).thaw()  # by what the journal says, as a later daemon does
    wait_state(process.pid, "SR")
    fence.freeze()
    fence.kill()
    assert process.wait(10) < 0
    with pytest.raises(XiatbError):
        fence.freeze()
    fence.thaw()
    fence.kill()


def test_fence_never_touches_another_process(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pid, started = Fence.of("g", tmp_path).process
    other = Fence((pid, started + 1))
    with pytest.raises(XiatbError, match="another"):
        other.freeze()
    other.kill()
    assert process.poll() is None
    with pytest.raises(XiatbError, match="not known"):
        Fence.of("nobody", tmp_path).freeze()
