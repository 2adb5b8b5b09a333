"""What a disk image names in its header: images of qemu-img, and hostile bytes."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

from xiatb.guests import qcow2


def made(path: Path, *how: str, size: str = "1M") -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *how, str(path), size], check=True)
    return path


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_an_image_that_names_nothing(tmp_path: Path, compat: str) -> None:
    path = made(tmp_path / "a", "-o", f"compat={compat}")
    assert qcow2.read(path) == qcow2.Header()
    qcow2.check(path, "qcow2")


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_a_backing_file_is_named(tmp_path: Path, compat: str) -> None:
    made(tmp_path / "below")
    path = made(tmp_path / "a", "-o", f"compat={compat}", "-b", "below", "-F", "qcow2")
    assert qcow2.read(path) == qcow2.Header(backing="below")
    qcow2.check(path, "qcow2", backing=True)
    with pytest.raises(qcow2.ImageError, match=r"a lies on another file, 'below'$"):
        qcow2.check(path, "qcow2")


@pytest.mark.parametrize("raw", ["on", "off"])
def test_an_external_data_file_is_refused_by_name(tmp_path: Path, raw: str) -> None:
    """Any file of the host could stand there; QEMU would give it to the guest, to read and to write."""
    path = made(tmp_path / "a", "-o", f"data_file={tmp_path}/shadow,data_file_raw={raw}")
    assert qcow2.read(path) == qcow2.Header(data_file=f"{tmp_path}/shadow", outside=True)
    for backing in (False, True):
        with pytest.raises(qcow2.ImageError, match=r"a keeps its data in another file, '.*/shadow'$"):
            qcow2.check(path, "qcow2", backing=backing)
    (tmp_path / "shadow").unlink()
    assert qcow2.read(path).data_file == f"{tmp_path}/shadow", "nothing that is named is opened"


def test_the_bit_alone_is_enough(tmp_path: Path) -> None:
    data = bytearray(made(tmp_path / "a").read_bytes())
    data[79] |= 1 << 2
    assert qcow2.parse(bytes(data)) == qcow2.Header(outside=True)


def test_only_regular_files_are_images(tmp_path: Path) -> None:
    made(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "none", "."):
        with pytest.raises(qcow2.ImageError, match=str(tmp_path)):
            qcow2.read(tmp_path / name)
    (tmp_path / "text").write_text("QFI")
    with pytest.raises(qcow2.ImageError, match="text is no qcow2 image"):
        qcow2.check(tmp_path / "text", "qcow2")
    qcow2.check(tmp_path / "text", "raw")
    with pytest.raises(qcow2.ImageError, match="format 'vmdk'"):
        qcow2.check(tmp_path / "text", "vmdk")


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (4, struct.pack(">I", 4), "version 4"),
        (20, struct.pack(">I", 99), r"2\^99"),
        (100, struct.pack(">I", 8), "header of 8 bytes"),
        (8, struct.pack(">QI", 60, 1 << 31), "backing file leaves"),
        (8, struct.pack(">QI", 1 << 63, 5), "backing file leaves"),
        (108, struct.pack(">I", 1 << 31), "extension leaves"),
    ],
)
def test_headers_that_contradict_themselves(tmp_path: Path, at: int, value: bytes, words: str) -> None:
    data = bytearray(made(tmp_path / "a", "-o", f"data_file={tmp_path}/x").read_bytes()[: 1 << 16])
    if at == 108:
        at = struct.unpack_from(">I", data, 100)[0] + 4
    data[at : at + len(value)] = value
    with pytest.raises(qcow2.ImageError, match=words):
        qcow2.parse(bytes(data))


def test_hostile_headers_give_a_header_or_the_error(tmp_path: Path) -> None:
    source = random.Random(7)
    good = made(tmp_path / "a", "-o", f"data_file={tmp_path}/x").read_bytes()[:600]
    refused = 0
    for _ in range(2000):
        data = bytearray(good[: source.randrange(len(good) + 1)])
        for _ in range(source.randrange(6)):
            if data:
                data[source.randrange(len(data))] = source.choice((0, 1, 4, 255, source.randrange(256)))
        try:
            header = qcow2.parse(bytes(data))
        except qcow2.ImageError:
            refused += 1
        else:
            assert len(header.backing) <= 1023 and len(header.data_file) <= 1023
    assert 0 < refused < 2000
