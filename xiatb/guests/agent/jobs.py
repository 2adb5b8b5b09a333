"""Commands that run in the guest while the host reads their output in pieces.

`exec_start` starts one, `exec_poll` gives what came since and the exit code once all was given,
`exec_kill` ends it. A poll names the output offset it has (`ack`), so an answer lost in a
migration is simply asked for again. A command whose output nobody fetches is held back by its pipe.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os

from xiatb.guests.agent.niceness import become_load
from xiatb.guests.agent.ops import argv_of, environment_of
from xiatb.guests.agent.protocol import Message

MAX_JOBS = 8
MAX_HELD = 32 * 1024
MAX_WAIT = 2.0


class Job:
    """One command; `held` is output from offset `start` on, as (stream name, bytes) pieces."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.code: int | None = None
        self.start = 0
        self.pieces: list[tuple[str, bytes]] = []
        self.changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.ensure_future(self._collect())

    @property
    def held(self) -> int:
        """Bytes of output not yet acknowledged."""
        return sum(len(data) for _, data in self.pieces)

    async def _collect(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        await asyncio.gather(
            self._read("stdout", self.process.stdout), self._read("stderr", self.process.stderr)
        )
        code = await self.process.wait()
        self.code = code if code >= 0 else 128 - code
        self.changed.set()

    async def _read(self, name: str, stream: asyncio.StreamReader) -> None:
        while True:
            await self._room.wait()
            data = await stream.read(4096)
            if not data:
                return
            self.pieces.append((name, data))
            if self.held >= MAX_HELD:
                self._room.clear()
            self.changed.set()

    def acknowledge(self, offset: int) -> None:
        """Forgets output before `offset`."""
        while self.pieces and self.start + len(self.pieces[0][1]) <= offset:
            self.start += len(self.pieces.pop(0)[1])
        if self.held < MAX_HELD:
            self._room.set()

    def kill(self) -> None:
        """Kills the command's whole session."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, 9)


class Jobs:
    """The running commands of the agent."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._next = 0

    async def start(self, message: Message, extra: dict[str, str]) -> Message:
        """Starts `argv` (optional `env`); gives its `job` number."""
        argv, environment = argv_of(message), environment_of(message, extra)
        finished = [number for number, job in self._jobs.items() if job.code is not None]
        if len(self._jobs) - len(finished) >= MAX_JOBS:
            raise OSError(f"{MAX_JOBS} commands run already")
        for number in finished[: max(0, len(self._jobs) - MAX_JOBS)]:
            del self._jobs[number]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=environment,
                cwd="/root" if os.path.isdir("/root") else "/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                preexec_fn=become_load,
            )
        except FileNotFoundError:
            return {"job": 0, "code": 127}
        except PermissionError:
            return {"job": 0, "code": 126}
        self._next += 1
        self._jobs[self._next] = Job(process)
        return {"job": self._next}

    def _job(self, message: Message) -> Job:
        number = message.get("job")
        if not isinstance(number, int) or number not in self._jobs:
            raise KeyError(f"there is no job {number!r}")
        return self._jobs[number]

    async def poll(self, message: Message) -> Message:
        """Output from offset `ack` on (waits up to `wait` s for some): `pieces` of [stream, base64], `offset`
        after them, and `code` once everything was given and the command has ended."""
        job = self._job(message)
        job.acknowledge(int(message.get("ack") or 0))
        wait = min(float(message.get("wait") or 0.0), MAX_WAIT)
        job.changed.clear()
        if not job.pieces and job.code is None and wait > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(job.changed.wait(), wait)
        pieces = [[name, base64.b64encode(data).decode("ascii")] for name, data in job.pieces]
        offset = job.start + job.held
        return {"pieces": pieces, "start": job.start, "offset": offset, "code": job.code}

    async def kill(self, message: Message) -> Message:
        """Kills `job`."""
        self._job(message).kill()
        return {}
