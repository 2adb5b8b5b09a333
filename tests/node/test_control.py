"""The control socket against good, bad and hostile clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from xiatb.errors import LabStateError
from xiatb.node.control import ControlServer, Session
from xiatb.node.control_protocol import (
    MAX_LINE,
    ControlError,
    Json,
    LineDecoder,
    LineTooLongError,
    decode,
    encode,
    field,
    number,
)
from xiatb.node.rpc import RpcClient


async def slow(session: Session, request: Json) -> Json:
    await asyncio.sleep(30)
    return {}


async def late_failure(session: Session, request: Json) -> Json:
    await asyncio.sleep(0)
    raise ControlError("ENOENT", "no")


def broken(session: Session, request: Json) -> Json:
    raise ZeroDivisionError("a fault of ours")


async def late_broken(session: Session, request: Json) -> Json:
    await asyncio.sleep(0)
    return broken(session, request)


@contextlib.asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[ControlServer, list[Session]]]:
    gone: list[Session] = []
    server = ControlServer(
        tmp_path / "control.sock",
        {
            "echo": lambda session, request: {"got": request.get("x")},
            "fail": lambda session, request: {"n": number(request, "n", 0, 0, 5)},
            "slow": slow,
            "late": late_failure,
            "broken": broken,
            "late broken": late_broken,
        },
        gone.append,
    )
    await server.start()
    try:
        yield server, gone
    finally:
        server.close()


async def ask(path: Path, *lines: bytes) -> list[Json]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"".join(line + b"\n" for line in lines))
    answers = [json.loads(await asyncio.wait_for(reader.readline(), 5)) for _ in lines]
    writer.close()
    return answers


def test_answers_and_errors(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as (server, _):
            assert os.stat(server.path).st_mode & 0o777 == 0o600
            answers = await ask(
                server.path, b'{"id":1,"op":"echo","x":[1]}', b'{"id":2,"op":"nope"}', b"not json", b"[]",
                b"{}", b'{"id":"s","op":"fail","n":true}', b'{"id":3,"op":"fail","n":9}', b'{"op":{}}',
                b"\xff\xfe", b"",
                b'{"id":4,"op":"late"}',
            )  # fmt: skip
            assert answers[0] == {"id": 1, "ok": True, "result": {"got": [1]}}
            codes = [answer["error"]["code"] for answer in answers[1:]]
            wanted = "ENOSYS EBADMSG EBADMSG ENOSYS EINVAL EINVAL ENOSYS EBADMSG EBADMSG ENOENT"
            assert codes == wanted.split()
            with pytest.raises(LabStateError):
                await ControlServer(server.path, {}, lambda session: None).start()
        assert not server.path.exists()

    asyncio.run(body())


def test_a_fault_of_the_server_is_answered_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> list[Json]:
        async with serving(tmp_path) as (server, _):
            ops = ("broken", "late broken", "echo")
            lines = [encode({"id": op, "op": op}).strip() for op in ops]
            return sorted(await ask(server.path, *lines), key=lambda answer: str(answer["id"]))

    first, echo, late = asyncio.run(body())
    for answer in (first, late):
        assert answer["error"] == {"code": "EIO", "message": "internal error"}
    assert echo["ok"], "the server goes on"
    assert caplog.text.count("ZeroDivisionError: a fault of ours") == 2


def test_too_long_line_ends_the_session(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as (server, gone):
            reader, writer = await asyncio.open_unix_connection(str(server.path), limit=4 * MAX_LINE)
            writer.write(b"x" * (MAX_LINE + 70000))
            answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
            assert answer["error"]["code"] == "EMSGSIZE"
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            assert len(gone) == 1

    asyncio.run(body())


def test_flood_of_slow_requests_is_bounded(tmp_path: Path) -> None:
    async def body() -> None:
        async with serving(tmp_path) as (server, gone):
            reader, writer = await asyncio.open_unix_connection(str(server.path))
            for number_ in range(100):
                writer.write(encode({"id": number_, "op": "slow"}))
            answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
            assert answer["error"]["code"] == "EAGAIN"
            writer.close()
            async with asyncio.timeout(5):
                while not gone:
                    await asyncio.sleep(0.01)

    asyncio.run(body())


def test_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("")

    async def body() -> None:
        async with serving(tmp_path) as (server, _):
            assert (await ask(server.path, b'{"id":1,"op":"echo"}'))[0]["ok"]

    asyncio.run(body())


def test_decoder_splits_anyhow() -> None:
    text = encode({"a": 1}) + encode({"b": "é\n"}) + b"rest"
    for step in (1, 2, 3, 1000):
        decoder = LineDecoder()
        lines = [line for at in range(0, len(text), step) for line in decoder.feed(text[at : at + step])]
        assert [decode(line) for line in lines] == [{"a": 1}, {"b": "é\n"}]
    with pytest.raises(LineTooLongError):
        LineDecoder(10).feed(b"x" * 11)
    with pytest.raises(LineTooLongError):
        LineDecoder(10).feed(b"x" * 11 + b"\n")


def test_deep_json_is_an_error() -> None:
    with pytest.raises(ControlError):
        decode(b"[" * 200_000)


def test_field_types() -> None:
    request: Json = {"s": "x", "b": True, "n": 1.5}
    assert field(request, "s", str) == "x" and field(request, "z", str, None) is None
    assert number(request, "n", 0, 0, 2) == 1.5
    for name, kind in (("s", int), ("b", int), ("missing", str)):
        with pytest.raises(ControlError):
            field(request, name, kind)
    with pytest.raises(ControlError):
        number({"n": float("nan")}, "n", 0, 0, 1)


def test_client_matches_answers_and_events() -> None:
    events: list[Json] = []
    answers: list[object] = []
    client = RpcClient(events.append)
    first = json.loads(client.request("a", {"x": 1}, lambda result, error: answers.append(result or error)))
    client.request("b", {}, lambda result, error: answers.append(error and error.code))
    assert first == {"id": 1, "op": "a", "x": 1}
    client.feed(b'{"event":"locator"}\n{"id":1,"ok":true,"result":{"y":2}}\n{"id":77}\n')
    client.closed()
    assert events == [{"event": "locator"}] and answers == [{"y": 2}, "ENOTCONN"]
    with pytest.raises(ControlError):
        client.feed(b"[]\n")
