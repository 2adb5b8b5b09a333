"""A delay line's control socket, served from its own event loop: nothing that could hold up frames.

The protocol is the nodes' (`xiatb.node.control_protocol`): one JSON object a line each way.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.node.control_protocol import ControlError, LineDecoder, decode, encode, failed, ok

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class LineControl:
    """Listens at `path` (0600) and answers each request with what `answer` gives for it.

    `poller` is the loop's epoll; descriptors that the loop does not know go to `serve`."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.poller = select.epoll()
        self._path = path
        self._answer = answer
        self._clients: dict[int, tuple[socket.socket, LineDecoder]] = {}
        self._listener = _listen(path)
        self.poller.register(self._listener.fileno(), select.EPOLLIN)

    def serve(self, descriptor: int) -> None:
        """Something is to be read at `descriptor`."""
        if descriptor == self._listener.fileno():
            client, _ = self._listener.accept()
            client.settimeout(0.05)  # one that does not read its answer is let go of, not waited for
            self._clients[client.fileno()] = client, LineDecoder()
            self.poller.register(client.fileno(), select.EPOLLIN)
            return
        client, decoder = self._clients[descriptor]
        try:
            data = client.recv(65536)
            for line in decoder.feed(data):
                client.sendall(encode(self._reply(line)))
        except (OSError, XiatbError):
            data = b""
        if not data:
            self.poller.unregister(descriptor)
            del self._clients[descriptor]
            client.close()

    def close(self) -> None:
        """Stop listening; the file goes too."""
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _reply(self, line: bytes) -> dict[str, Any]:
        number: object = None
        try:
            request = decode(line)
            number = request.get("id")
            return ok(number, self._answer(request))
        except ControlError as error:
            return failed(number, error)
        except (ValueError, KeyError, TypeError) as error:
            return failed(number, ControlError("EINVAL", str(error)))


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(8)
    return listener
