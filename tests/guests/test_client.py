import contextlib
import itertools
import json
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiatb.errors import DeadlineError, XiatbError
from xiatb.guests.client import AgentClient, AgentError, Exchange, _pieces, fixed, result_of


class Script:
    """A server that plays one reply function per connection."""

    def __init__(self, path, replies):
        self.path = path
        self.requests = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(5)
        self._thread = threading.Thread(target=self._run, args=(replies,), daemon=True)
        self._thread.start()

    def _run(self, replies):
        for reply in replies:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                data = b""
                while data.count(b"\n") < 2:
                    piece = client.recv(4096)
                    if not piece:
                        break
                    data += piece
                request = json.loads(data.split(b"\n")[1])
                self.requests.append(request)
                client.sendall(reply(request))

    def close(self):
        self._listener.close()


@pytest.fixture
def script(tmp_path):
    made = []

    def make(*replies):
        made.append(Script(tmp_path / "s", replies))
        return made[-1]

    yield make
    for one in made:
        one.close()


def good(request):
    return (
        b'noise\n{"event":"x"}\n'
        + json.dumps({"id": request["id"], "ok": True, "result": {"a": 1}}).encode()
        + b"\n"
    )


def test_an_idempotent_request_is_asked_again_after_a_cut(script):
    server = script(lambda request: b"", lambda request: b'{"id": 0, "ok": true}\n', good)
    assert AgentClient(fixed(server.path)).request({"op": "uptime"}, 10.0) == {"a": 1}
    assert len({request["id"] for request in server.requests}) == 3


def test_another_request_is_not_asked_twice(script):
    server = script(lambda request: b"", good)
    with pytest.raises(DeadlineError):
        AgentClient(fixed(server.path)).request({"op": "exec_start", "argv": ["true"]}, 5.0)
    assert len(server.requests) == 1


def test_a_refusal_and_a_senseless_answer(script):
    refuse = {"ok": False, "error": {"code": "ENOENT", "message": "no"}}
    server = script(
        lambda request: json.dumps({**refuse, "id": request["id"]}).encode() + b"\n",
        lambda request: json.dumps({"id": request["id"], "ok": True, "result": 3}).encode() + b"\n",
    )
    client = AgentClient(fixed(server.path))
    for code in ("ENOENT", "EPROTO"):
        with pytest.raises(AgentError) as caught:
            client.request({"op": "checksum", "path": "/x"})
        assert caught.value.code == code


def test_nobody_there_is_a_deadline_and_nowhere_an_error(tmp_path):
    with pytest.raises(DeadlineError):
        AgentClient(fixed(tmp_path / "none")).request({"op": "uptime"}, 0.3)

    def nowhere() -> Path:
        raise XiatbError("on no hypervisor")

    with pytest.raises(XiatbError, match="on no hypervisor"):
        AgentClient(nowhere).request({"op": "uptime"}, 5.0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
answers = st.dictionaries(st.sampled_from(["id", "ok", "result", "error", "x"]), json_values)


@given(answers)
def test_result_of_any_answer_is_a_result_or_a_refusal(answer):
    with contextlib.suppress(AgentError):
        assert isinstance(result_of(answer), dict)


@given(
    st.dictionaries(st.sampled_from(["pieces", "start", "offset", "code"]), json_values), st.integers(0, 100)
)
def test_pieces_of_any_state_are_bytes(state, offset):
    assert all(isinstance(data, bytes) for _, data in _pieces(state, offset))


def test_pieces_skip_what_was_seen():
    state = {"start": 10, "pieces": [["stdout", "YWJj"], ["stderr", "ZGVm"]]}
    assert _pieces(state, 10) == [("stdout", b"abc"), ("stderr", b"def")]
    assert _pieces(state, 12) == [("stdout", b"c"), ("stderr", b"def")]
    assert _pieces(state, 16) == []


@given(st.binary(max_size=300))
def test_an_exchange_takes_any_bytes(data):
    exchange = Exchange({"op": "uptime"})
    answer = exchange.feed(data)
    assert answer is None or answer["id"] == exchange.ident


def test_identifiers_differ():
    idents = {Exchange({"op": "x"}).ident for _ in itertools.repeat(None, 100)}
    assert len(idents) == 100


@pytest.mark.parametrize("result", [{}, {"code": "x"}, {"job": "1"}, {"job": None, "code": [1]}])
def test_a_guest_that_answers_senselessly_ends_the_command(script, result):
    server = script(
        lambda request: json.dumps({"id": request["id"], "ok": True, "result": result}).encode() + b"\n"
    )
    with pytest.raises(AgentError) as caught:
        AgentClient(fixed(server.path)).execute(["true"], lambda stream, data: None, 5.0)
    assert caught.value.code == "EPROTO"


def test_what_a_guest_says_of_an_error_steers_no_terminal():
    with pytest.raises(AgentError) as caught:
        result_of({"ok": False, "error": {"code": "\x1b]0;x\x07", "message": "a\x9b2J\ud800b"}})
    assert (caught.value.code, caught.value.message) == (" ]0;x ", "guest agent: a 2J b")


@pytest.mark.parametrize("services", [[1], "x", {"a": 3}, {"a": {"state": "starting\x1b"}}])
def test_a_guest_whose_state_makes_no_sense_is_not_ready(script, services):
    answer = {"ok": True, "result": {"services": services}}
    server = script(lambda request: json.dumps({**answer, "id": request["id"]}).encode() + b"\n")
    with pytest.raises(DeadlineError) as caught:
        AgentClient(fixed(server.path)).wait_ready(0.3)
    assert caught.value.message.isprintable()
