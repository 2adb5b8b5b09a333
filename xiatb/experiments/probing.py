"""The probe client from the experiment's side: start it in a node, ask it for its state, end it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from xiatb.errors import DeadlineError, XiatbError
from xiatb.experiments.probelog import ProbeLog
from xiatb.lab.context import in_node, last_words, node_environment
from xiatb.lab.paths import LabPaths
from xiatb.lab.priority import MEASUREMENT, prioritised
from xiatb.lab.state import read_state
from xiatb.node.session import favour_session

_READY_S = 60.0
_CHECK_S = 40.0


class ProbeError(XiatbError):
    """The probe client failed."""


class ProbeProcess:
    """A running `xiatb.experiments.probeclient` in a node of a lab.

    It ends with this process at the latest, because its standard input then ends.
    """

    def __init__(
        self,
        paths: LabPaths,
        node: str,
        *,
        responder: str,
        echo: str,
        directory: Path,
        rate: float = 1000.0,
        stream_rate: int = 100_000,
        seed: int = 1,
        module: str = "xiatb.experiments.probeclient",
    ) -> None:
        """`responder` and `echo` are DAGs (text), or places as `module` (ipclient) wants them, `rate`
        requests a second, `stream_rate` bytes a second; the probe log and the client's messages go to
        `directory`. Starts it; see `wait_ready`."""
        self.log_path = directory / "probes.bin"
        self._messages = directory / "probe.log"
        argv = [
            sys.executable, "-m", module,
            "--responder", responder, "--echo", echo, "--rate", str(rate),
            "--stream-rate", str(stream_rate), "--seed", str(seed), "--out", str(self.log_path),
        ]  # fmt: skip
        state = read_state(paths)
        with self._messages.open("ab") as log:
            self._child = subprocess.Popen(
                in_node(state, node, prioritised(argv, MEASUREMENT)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **node_environment(paths, state, node)},
                start_new_session=True,
            )
        favour_session(self._child.pid, MEASUREMENT)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()

    def wait_ready(self) -> None:
        """Return when both services answered. Raises ProbeError, DeadlineError."""
        self._expect("ready", _READY_S)

    def check(self) -> dict[str, Any]:
        """Wait until all stream bytes sent so far came back; {"stream_bytes", "stream_intact", ...}."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(b"check\n")
            self._child.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error
        return self._expect("check", _CHECK_S)

    def finish(self) -> tuple[dict[str, Any], ProbeLog]:
        """End the stream in order and the process; its last report and the probe log."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        report = self._expect("done", _CHECK_S)
        self._child.wait(_CHECK_S)
        return report, ProbeLog.load(self.log_path)

    def _expect(self, event: str, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            message = self._message(event, deadline)
            if message.get("event") == event:
                return message
            if message.get("event") == "failed":
                raise ProbeError(f"probe client: {message.get('error')}")

    def _message(self, event: str, deadline: float) -> dict[str, Any]:
        assert self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise DeadlineError(f"probe client: no {event!r} in time; see {self._messages}")
            data = os.read(descriptor, 65536)
            if not data:
                raise self._died()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _died(self) -> ProbeError:
        return ProbeError(f"the probe client ended: {last_words(self._messages)}")
