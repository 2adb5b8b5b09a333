"""Frames and messages of the control protocol: both ways, and against hostile bytes."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.migration.samples import EXAMPLES, JOB, REQUEST
from xiatb.errors import WireError
from xiatb.migration import frames
from xiatb.migration import messages as m


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.TYPE)
def test_message_there_and_back(message: m.Message) -> None:
    assert m.decode(frames.load(frames.dump(m.encode(message)))) == message


def test_every_type_has_an_example() -> None:
    assert {message.TYPE for message in EXAMPLES} == set(m.TYPES)


PAGE = (Path(__file__).parents[2] / "docs" / "protocol-migration.md").read_text()


def rows(heading: str, until: str) -> dict[str, str]:
    """First cell -> the rest of each row of the tables between two texts of the page, but for their heads."""
    part = PAGE[PAGE.index(heading) : PAGE.index(until, PAGE.index(heading))]
    found = re.findall(r"^\| `(\w[\w-]*)` \| (.*) \|$(?!\n\|---)", part, re.MULTILINE)
    return dict(found)


def test_the_page_has_every_message_with_every_field_and_code() -> None:
    told = rows("## Messages", "| `fate` | meaning")
    assert set(told) == set(m.TYPES)
    for name, cls in m.TYPES.items():
        fields = {field.name for field in dataclasses.fields(cls)} - {"job"}  # type: ignore[arg-type]
        missing = {field for field in fields if not re.search(rf"`{field}`", told[name])}
        assert not missing, f"{name}: the page does not tell of {missing}"
    assert set(rows("| `fate` | meaning", "Reasons for `reject`")) == set(m.FATES)
    codes = set(rows("Reasons for `reject`", "A host that is not a configured peer"))
    assert codes == set(m.REJECT_CODES) - {"not-a-peer"}, "which the page tells of below the table"
    assert f"Version {frames.VERSION}." in PAGE


def test_unknown_fields_are_ignored_unknown_messages_refused() -> None:
    assert m.decode({**m.encode(REQUEST), "colour": "blue"}) == REQUEST
    with pytest.raises(WireError, match="unknown control message 'dance'"):
        m.decode({"t": "dance"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("job", "../../etc"), ("guest", "a b"), ("guest", ""), ("memory", -1), ("memory", True), ("memory", 1.5),
     ("uuid", "x"), ("hid", "HID:00"), ("storage", 1), ("mode", "teleport"), ("disks", [{}]), ("disks", {}),
     ("services", ["SID:zz"]), ("files", ["relative"]), ("vcpus", 0), ("machine", "x" * 65)],
)  # fmt: skip
def test_bad_fields_are_named(field: str, value: object) -> None:
    with pytest.raises(WireError, match=f"request.{field}"):
        m.decode({**m.encode(REQUEST), field: value})


def test_sentences_lose_what_cannot_be_printed_and_names_may_not_have_it() -> None:
    """libvirt's errors have several lines: they must arrive all the same, and steer no terminal."""
    abort = m.Abort(job=JOB, code="failed", reason="qemu:\n gone\x1b[2J\x9b\ud800é")
    told = m.decode(json.loads(json.dumps(m.encode(abort))))
    assert told == m.Abort(job=JOB, code="failed", reason="qemu:  gone [2J  é")
    for bad in ("a\x7f", "a\x9bb", "\ud800", "a\nb"):
        with pytest.raises(WireError, match=r"request\.machine"):
            m.decode({**m.encode(REQUEST), "machine": bad})


def test_missing_field_is_named() -> None:
    value = m.encode(REQUEST)
    del value["uuid"]
    with pytest.raises(WireError, match="request.uuid is missing"):
        m.decode(value)


def test_frames_survive_any_cutting() -> None:
    stream = b"".join(frames.pack_json(frames.CLEAR, {"n": n}) for n in range(5))
    for size in (1, 2, 3, 7, len(stream)):
        reader = frames.FrameReader()
        seen = []
        for at in range(0, len(stream), size):
            reader.feed(stream[at : at + size])
            while (frame := reader.next()) is not None:
                seen.append(frames.load(frame[1])["n"])
        assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "head",
    [struct.pack(">IBB", 1, 2, 0), struct.pack(">IBB", 65537, 2, 0), struct.pack(">IBB", 9, 1, 0),
     struct.pack(">IBB", 9, 2, 3), b"\xff" * 6],
)  # fmt: skip
def test_bad_heads_are_refused_before_the_body(head: bytes) -> None:
    reader = frames.FrameReader()
    reader.feed(head)
    with pytest.raises(WireError):
        reader.next()


@pytest.mark.parametrize("body", [b"[" * 60000, b"[]", b"\xff", b'{"a":NaN}', b"", b'{"a":'])
def test_bodies_that_are_no_object(body: bytes) -> None:
    with pytest.raises(WireError):
        frames.load(body)


def test_sealed_frames_refuse_forgery_replay_and_loss() -> None:
    sealer, key = frames.Sealer(b"k" * 32), b"k" * 32
    first, second = sealer.seal(b"{}")[6:], sealer.seal(b"{}")[6:]
    opener = frames.Opener(key)
    assert opener.open(first) == b"{}"
    with pytest.raises(WireError, match="sequence"):
        opener.open(first)
    with pytest.raises(WireError, match="sequence"):
        frames.Opener(key).open(second)
    with pytest.raises(WireError, match="authentication"):
        frames.Opener(b"x" * 32).open(first)
    with pytest.raises(WireError, match="truncated"):
        frames.Opener(key).open(first[:39])
    for at in range(len(first)):
        bent = bytearray(first)
        bent[at] ^= 1
        with pytest.raises(WireError):
            frames.Opener(key).open(bytes(bent))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_only_ever_raise_wire_errors(data: bytes) -> None:
    reader = frames.FrameReader()
    reader.feed(data)
    try:
        while (frame := reader.next()) is not None:
            m.decode(frames.load(frame[1]))
    except WireError:
        return


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(EXAMPLES), st.data())
def test_messages_with_hostile_fields_only_ever_raise_wire_errors(
    message: m.Message, data: st.DataObject
) -> None:
    value = m.encode(message)
    name = data.draw(st.sampled_from(sorted(value)))
    value[name] = data.draw(_JSON)
    try:
        decoded = m.decode(json.loads(json.dumps(value)))
    except WireError:
        return
    assert m.decode(m.encode(decoded)) == decoded
