"""The client's half of the control protocol, without I/O: requests out, answers and events in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xiatb.errors import XiatbError
from xiatb.node.control_protocol import ControlError, Json, LineDecoder, decode, encode

OnAnswer = Callable[[Json | None, ControlError | None], None]


class RpcClient:
    """One connection's requests under way and its events.

    on_event: called with every event that comes. Answers go to the function given with the request.
    """

    def __init__(self, on_event: Callable[[Json], None]) -> None:
        self._on_event = on_event
        self._waiting: dict[int, OnAnswer] = {}
        self._next_id = 1
        self._decoder = LineDecoder()

    def request(self, op: str, fields: Mapping[str, object], on_answer: OnAnswer) -> bytes:
        """The bytes of one request; `on_answer(result, None)` or `(None, error)` is called once."""
        number = self._next_id
        self._next_id += 1
        self._waiting[number] = on_answer
        return encode({"id": number, "op": op, **fields})

    def feed(self, data: bytes) -> None:
        """Takes bytes of the node. Raises ControlError when they are not the protocol."""
        for line in self._decoder.feed(data):
            message = decode(line)
            if "event" in message:
                self._on_event(message)
            else:
                self._answer(message)

    def _answer(self, message: Json) -> None:
        on_answer = self._waiting.pop(message.get("id", 0), None)
        if on_answer is None:
            return
        if message.get("ok") is True and isinstance(message.get("result"), dict):
            on_answer(message["result"], None)
            return
        error = message.get("error")
        told = error if isinstance(error, dict) else {}
        on_answer(
            None, ControlError(str(told.get("code", "EPROTO")), str(told.get("message", "no reason given")))
        )

    def closed(self, reason: XiatbError | None = None) -> None:
        """Fails every request under way: the connection is gone."""
        waiting, self._waiting = self._waiting, {}
        message = reason.message if reason else "the node process closed the control connection"
        for on_answer in waiting.values():
            on_answer(None, ControlError("ENOTCONN", message))
