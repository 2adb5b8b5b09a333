"""The lab's half of the fork server (`xiatb.node.forkserver`): starts it, has it fork the node processes.

Its children are not the supervisor's: that one has ended is known from its pidfd, which needs nobody's word,
and how it ended from what the server says.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.lab import process
from xiatb.lab.context import Context, last_words

WHAT = "fork server"
UNKNOWN = 255
"""Exit code of a process whose parent, the fork server, was gone before it."""
_ANSWER = 30.0
_TITLE_ROOM = 160


class ForkedProcess:
    """A child of the fork server, with what `subprocess.Popen` offers of a process."""

    def __init__(self, server: ForkServer, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._pidfd = pidfd

    def fileno(self) -> int:
        """Readable when the process has ended; -1 once that is known."""
        return self._pidfd

    def poll(self) -> int | None:
        """Exit code, minus the signal's number when it was killed; None while it runs."""
        if self.returncode is None and self._ended(0):
            self.returncode = self._server.code(self.pid)
            os.close(self._pidfd)
            self._pidfd = -1
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; as `poll`. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._ended(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal; fine when it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, sig)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> bool:
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))


class ForkServer:
    """The fork server of one lab. Thread-safe."""

    def __init__(self, context: Context) -> None:
        """Start it, as a process of the lab."""
        self._context = context
        self._lock = threading.Lock()
        self._codes: dict[int, int] = {}
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # A child overwrites its arguments with its own name; the last one makes room for that.
            argv = [sys.executable, "-m", "xiatb.node.forkserver", str(theirs.fileno()), " " * _TITLE_ROOM]
            self.process = context.start(
                argv, what=WHAT, log=self.log, env=dict(os.environ), pass_fds=[theirs.fileno()]
            )

    @property
    def log(self) -> Path:
        """Where the server's own last words are."""
        return self._context.paths.root / "forkserver.log"

    def fork(
        self, node: str, config: Path, *, log: Path, env: Mapping[str, str], niceness: int, ready: int
    ) -> ForkedProcess:
        """A node process in the namespaces of `node`, journalled. `ready` is a descriptor that it is to write
        its ready message to. Raises XiatbError when the server is gone."""
        pid = self._context.node_pid(node)
        request = {"config": str(config), "name": node, "env": dict(env), "nice": niceness}
        with contextlib.ExitStack() as stack:
            descriptors = [
                stack.enter_context(open(f"/proc/{pid}/ns/{kind}", "rb")).fileno() for kind in ("net", "mnt")
            ]
            descriptors += [stack.enter_context(open(log, "ab")).fileno(), ready]
            child = self._ask(json.dumps(request).encode(), descriptors)
        found = process.identify_child(child.pid)
        self._context.adopt(child, found, what=f"node {node}")
        return child

    def code(self, pid: int) -> int:
        """The exit code of a child that has ended."""
        with self._lock:
            deadline = time.monotonic() + 1.0  # the server tells it as soon as it has a turn
            while pid not in self._codes and self._take(max(0.0, deadline - time.monotonic())):
                pass
            return self._codes.pop(pid, UNKNOWN)

    def close(self) -> None:
        """Let the server end."""
        self._socket.close()

    def _ask(self, data: bytes, descriptors: list[int]) -> ForkedProcess:
        with self._lock:
            try:
                socket.send_fds(self._socket, [data], descriptors)
                while True:
                    if not self._readable(_ANSWER):
                        raise XiatbError("the fork server does not answer", hint=f"see {self.log}")
                    message, received = self._message()
                    if "pid" in message:
                        return ForkedProcess(self, int(message["pid"]), received[0])
                    if "error" in message:
                        raise XiatbError(f"the fork server cannot start a node: {message['error']}")
            except OSError as error:
                raise self._gone() from error

    def _take(self, timeout: float) -> bool:
        """Take one message if there is one; False when not, or when the server is gone."""
        if not self._readable(timeout):
            return False
        try:
            self._message()
        except (OSError, XiatbError):
            return False
        return True

    def _message(self) -> tuple[dict[str, Any], list[int]]:
        data, received, _, _ = socket.recv_fds(self._socket, 1 << 16, 1)
        if not data:
            raise self._gone()
        message = json.loads(data)
        if "ended" in message:
            self._codes[int(message["ended"])] = int(message["code"])
        return message, list(received)

    def _gone(self) -> XiatbError:
        return XiatbError(f"the fork server has ended: {last_words(self.log)}", hint=f"see {self.log}")

    def _readable(self, timeout: float) -> bool:
        return bool(select.select([self._socket], [], [], timeout)[0])
