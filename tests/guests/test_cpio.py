import shutil
import subprocess

import pytest

from xiatb.guests import cpio
from xiatb.guests.guestconfig import config_archive


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_our_archives(tmp_path):
    data = config_archive({"guest.json": b"{}", "keys/hid.pem": b"secret", "node/.keep": b""})
    assert len(data) % 512 == 0
    subprocess.run(["cpio", "-i", "-m", "--quiet"], input=data, cwd=tmp_path, check=True)
    top = tmp_path / "xiatb-config"
    assert (top / "keys/hid.pem").read_bytes() == b"secret"
    assert (top / "keys/hid.pem").stat().st_mode & 0o777 == 0o600
    assert top.stat().st_mode & 0o777 == 0o700
    assert (top / "node").is_dir()


def test_header_fields_of_a_file():
    archive = cpio.Archive()
    archive.file("ab", b"xyz", 0o600)
    data = archive.finish()
    assert data[:6] == b"070701"
    assert int(data[14:22], 16) == 0o100600
    assert int(data[54:62], 16) == 3
    assert int(data[94:102], 16) == 3
    assert data[110:113] == b"ab\0"
