"""The fork server: one process of a lab that has imported all a node runs, and forks the node processes.

`python -m xiatb.node.forkserver DESCRIPTOR` serves the UNIX seqpacket socket that it inherited under that
number; the lab's half is `xiatb.lab.forkserver`. One request, JSON: {"config": path of node.json, "name",
"env": {...}, "nice": niceness}, with four descriptors: network namespace, mount namespace, output, ready
pipe. The answer is {"pid"} with a pidfd, or {"error"}. When a child ends, {"ended": pid, "code"} is sent.

The children share what the server imported (copy on write) and are ready without importing anything: that is
what makes hundreds of them affordable. They bear the lab's mark, as /proc/PID/environ is the server's. When
the lab's end of the socket is closed the server ends; its children live on.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from xiatb.click.compose import PortSpec, compose
from xiatb.click.graph import Router
from xiatb.errors import XiatbError
from xiatb.identity.keys import KeyPair, verify
from xiatb.node.__main__ import READY_FD, run_file
from xiatb.node.config import KINDS
from xiatb.node.session import favour_session

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_PR_SET_NAME = 15
_MAX_REQUEST = 1 << 16
_DESCRIPTORS = 4

IMPORTED = (
    "asyncio.unix_events",
    "logging.handlers",
    "xiatb.fastpath.errors",
    "xiatb.node.accelerator",
    "xiatb.node.gateway_cores",
    "xiatb.node.host_cores",
    "xiatb.node.process",
)
"""What a node process would import later, among it what only some kinds of node do."""


class ForkRequest(NamedTuple):
    """One node to be. `descriptors`: network namespace, mount namespace, output, ready pipe."""

    config: Path
    name: str
    env: Mapping[str, str]
    niceness: int
    descriptors: list[int]


class _Woken:
    """A pipe that becomes readable when a child ends, so that the server can wait for that and requests."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def drain(self) -> None:
        """Take what is in the pipe."""
        os.read(self.reader, 4096)

    def undo(self) -> None:
        """In a child: as if it had never been."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self.reader)
        os.close(self._writer)


def serve(sock: socket.socket) -> ForkRequest | None:
    """Fork a child per request. Returns in each child with what that is to be, in the server with None when
    the lab has closed its end."""
    woken = _Woken()
    poller = select.poll()
    for descriptor in (sock.fileno(), woken.reader):
        poller.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poller.poll()}
        if woken.reader in ready:
            woken.drain()
            _reap(sock)
        if sock.fileno() not in ready:
            continue
        request = _receive(sock)
        if request is None:
            return None
        if _fork(sock, request):
            woken.undo()
            return request


def _receive(sock: socket.socket) -> ForkRequest | None:
    data, descriptors, _, _ = socket.recv_fds(sock, _MAX_REQUEST, _DESCRIPTORS)
    if not data:
        return None
    wanted: dict[str, Any] = json.loads(data)
    return ForkRequest(
        Path(wanted["config"]), wanted["name"], wanted["env"], int(wanted["nice"]), list(descriptors)
    )


def _fork(sock: socket.socket, request: ForkRequest) -> bool:
    """True in the child."""
    try:
        pid = os.fork()
    except OSError as error:
        _tell(sock, {"error": f"fork: {error.strerror}"})
        return False
    if pid == 0:
        sock.close()
        return True
    pidfd = os.pidfd_open(pid)  # it cannot be another process's: nobody but us reaps it
    try:
        socket.send_fds(sock, [json.dumps({"pid": pid}).encode()], [pidfd])
    finally:
        for descriptor in (pidfd, *request.descriptors):
            os.close(descriptor)
    return False


def _reap(sock: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(sock, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _tell(sock: socket.socket, message: Mapping[str, object]) -> None:
    try:
        sock.send(json.dumps(message).encode())
    except OSError:
        return  # the lab is going away, and with it whoever wanted to know


def become(request: ForkRequest) -> int:
    """In a child: enter the node's namespaces, a session of its own, and run the node; exit code."""
    network, mounts, output, ready = request.descriptors
    libc = ctypes.CDLL(None, use_errno=True)
    os.setsid()
    for descriptor, kind in ((network, _CLONE_NEWNET), (mounts, _CLONE_NEWNS)):
        if libc.setns(descriptor, kind) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{request.name}: setns: {os.strerror(number)}")
        os.close(descriptor)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.chdir("/")
    libc.prctl(_PR_SET_NAME, f"xiatb {request.name}".encode()[:15], 0, 0, 0)
    _set_title(f"xiatb.node {request.config}")
    os.environ.update(request.env)
    os.environ[READY_FD] = str(ready)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, request.niceness)
    except PermissionError as error:
        sys.stderr.write(f"niceness {request.niceness}: {error.strerror}; running all the same\n")
    favour_session(os.getpid(), request.niceness)
    gc.enable()
    return run_file(request.config)


def _set_title(title: str) -> None:
    """Overwrite our arguments, for ps(1): fields 48 and 49 of /proc/PID/stat, proc(5), say where they are."""
    text = Path("/proc/self/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    begin, end = int(fields[45]), int(fields[46])
    if begin and end > begin + 1:
        room = end - begin
        ctypes.memmove(begin, title.encode()[: room - 1].ljust(room, b"\0"), room)


def warm_up() -> None:
    """Import and do once what every node process does: libraries load their parts at first use."""
    for name in IMPORTED:
        importlib.import_module(name)
    ports = [PortSpec("xia0r", "internal"), PortSpec("eth0"), PortSpec("tap0", "guest")]
    for role in KINDS:
        with contextlib.suppress(XiatbError):  # the node that wants it will say what is wrong
            Router.from_text(compose(role, ports if role == "hypervisor" else ports[:2]), f"<{role}>")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "key.pem"
        KeyPair.generate().save(path)
        key = KeyPair.from_pem_file(path)
    verify(key.public, key.sign(b""), b"")


def main(argv: list[str]) -> int:
    """Serve the socket whose descriptor is given; exit code of the server or, in a child, of the node."""
    sock = socket.socket(fileno=int(argv[1]))
    sock.set_inheritable(False)
    warm_up()
    gc.collect()
    gc.disable()
    gc.freeze()  # a collection must not touch, and so copy, what the children share
    request = serve(sock)
    return 0 if request is None else become(request)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
