"""Disk images that come from others: none may name further files of the host."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
from pathlib import Path

import pytest

from tests.migration.samples import DISK, REQUEST
from xiatb.migration import config, hosting, storage
from xiatb.migration.failure import MigrationError
from xiatb.migration.messages import Disk


def test_no_image_may_name_further_files(tmp_path: Path) -> None:
    """QEMU runs as root and opens what a qcow2 header names. Whoever wrote the header decides: another host
    that reaches a shared disk, or a guest, whose raw disk is a backing file of a later one."""
    here = config.DaemonConfig("lab", "hv2", tmp_path, tmp_path, tmp_path / "s", disks=tmp_path)

    def made(name: str, *how: str) -> Path:
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", *how, str(tmp_path / name), "1M"]
        subprocess.run(argv, check=True)
        return tmp_path / name

    def refusal(disk: Disk, *, copied: bool) -> tuple[str, str]:
        request = dataclasses.replace(REQUEST, disks=(disk,), storage=copied)
        try:
            asyncio.run(storage.admit_storage(request, here))
        except hosting.RefusedError as error:
            return error.code, error.message
        return "", ""

    (tmp_path / "secret").write_bytes(b"x" * (1 << 20))
    hostile = made("data", "-o", f"data_file={tmp_path}/secret,data_file_raw=on")
    plain, above = made("plain"), made("above", "-b", str(tmp_path / "secret"), "-F", "raw")
    outside = f"keeps its data in another file, '{tmp_path}/secret'"
    lies = f"lies on another file, '{tmp_path}/secret'"
    for path, words in ((plain, ""), (hostile, outside), (above, lies)):
        expected = ("wrong-image", f"hv2: {path} {words}") if words else ("", "")
        shared = dataclasses.replace(DISK, path=str(path), file=storage.identity(path))
        assert refusal(shared, copied=False) == expected
        backed = dataclasses.replace(DISK, backing=str(path), backing_format="qcow2",
                                     content=storage.content_id(path))  # fmt: skip
        assert refusal(backed, copied=True) == expected
        unread = dataclasses.replace(backed, backing_format="raw")
        assert refusal(unread, copied=True) == ("", ""), "has no header"
    with pytest.raises(MigrationError, match="keeps its data") as refused:
        asyncio.run(hosting.inspect_disk("vda", str(hostile), "qcow2"))
    assert refused.value.code == "wrong-image"
    assert asyncio.run(hosting.inspect_disk("vda", str(above), "qcow2")).size == 1 << 20
