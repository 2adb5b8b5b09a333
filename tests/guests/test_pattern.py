import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from xiatb.guests.agent.pattern import (
    CHUNK,
    Pattern,
    digest_of_file,
    digest_of_region,
    file_pieces,
    versions,
)
from xiatb.guests.agent.services.writer import Disk, Memory


@given(st.integers(1, 50), st.integers(0, 500))
def test_versions_are_what_round_robin_gives(chunks, writes):
    count = [0] * chunks
    for write in range(writes):
        count[write % chunks] += 1
    assert list(versions(chunks, writes)) == count


def test_a_lost_write_shows_in_another_version_and_body():
    pattern = Pattern(3)
    assert pattern.chunk(5, 1) != pattern.chunk(5, 2)
    assert pattern.body(5, 1) != pattern.body(5, 2)
    assert len(pattern.chunk(5, 1)) == CHUNK


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3 * CHUNK))
def test_file_digest_is_of_the_pieces(seed, size):
    data = b"".join(file_pieces(seed, size))
    assert len(data) == size
    assert hashlib.sha256(data).hexdigest() == digest_of_file(seed, size)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 6), st.integers(0, 40))
def test_the_writer_memory_is_predictable(chunks, writes):
    memory = Memory(9, chunks * CHUNK)
    memory.write(writes)
    assert memory.digest() == digest_of_region(9, chunks, writes)


def test_the_writer_file_is_predictable_and_damage_shows(tmp_path):
    disk = Disk(11, 5 * CHUNK, str(tmp_path / "file"))
    disk.write(13)
    assert disk.digest() == digest_of_region(11, 5, 13)
    with (tmp_path / "file").open("r+b") as stream:
        stream.seek(3 * CHUNK + 100)
        stream.write(b"!")
    assert disk.digest() != digest_of_region(11, 5, 13)


def test_a_rate_becomes_chunks_and_a_stall_is_not_made_good_at_once():
    memory = Memory(1, CHUNK)
    memory.rate = 10 * CHUNK
    assert sum(memory.due(0.05) for _ in range(20)) == 10
    assert memory.due(60.0) <= 10
    assert memory.behind > 500
