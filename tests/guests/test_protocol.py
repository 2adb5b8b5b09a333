import json

from hypothesis import given
from hypothesis import strategies as st

from xiatb.guests.agent.protocol import MAX_MESSAGE, LineDecoder, decode_line, encode, failure, success

messages = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=20) | st.none(), max_size=4)


def feed_in_pieces(decoder, data, cuts):
    found, start = [], 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        found += decoder.feed(data[start:cut])
        start = cut
    return found + decoder.feed(data[start:])


@given(st.lists(messages, max_size=6), st.lists(st.integers(0, 10_000), max_size=6))
def test_messages_survive_any_fragmentation(sent, cuts):
    data = b"".join(encode(message) for message in sent)
    assert feed_in_pieces(LineDecoder(), data, cuts) == sent


@given(st.binary(max_size=400), st.lists(st.integers(0, 10_000), max_size=4))
def test_noise_never_raises_and_a_message_after_a_newline_is_read(noise, cuts):
    decoder = LineDecoder()
    found = feed_in_pieces(decoder, noise + b"\n" + encode({"event": "ready"}), cuts)
    assert found[-1] == {"event": "ready"}


def test_memory_is_bounded_and_the_line_after_a_huge_one_is_read():
    decoder = LineDecoder(limit=1000)
    for _ in range(1000):
        assert decoder.feed(b"x" * 1000) == []
        assert len(decoder._buffer) <= 1000
    assert decoder.feed(b"\n" + encode({"a": 1})) == [{"a": 1}]
    assert decoder.oversize == 1


def test_deep_nesting_and_wrong_types_are_counted():
    decoder = LineDecoder()
    hostile = [b"[" * 100_000, b'{"a":' * 20_000, b"123", b"[1]", b"nan", b"\xff\xfe", b'"text"']
    assert decoder.feed(b"\n".join(hostile) + b"\n") == []
    assert decoder.malformed == len(hostile)


def test_encode_refuses_what_does_not_fit():
    try:
        encode({"a": "x" * MAX_MESSAGE})
    except ValueError:
        return
    raise AssertionError("no ValueError")


def test_answers():
    assert json.loads(encode(success(3, {"x": 1}))) == {"id": 3, "ok": True, "result": {"x": 1}}
    assert decode_line(encode(failure(3, "EIO", "m")))["error"] == {"code": "EIO", "message": "m"}
