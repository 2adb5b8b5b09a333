import json

from tests.guests.samples import RECORD
from xiatb.guests import guestconfig
from xiatb.node.config import parse_config


def test_the_guest_gets_all_its_files(tmp_path):
    import dataclasses

    key = tmp_path / "echo.pem"
    key.write_text("service key")
    hid = tmp_path / "hid.pem"
    hid.write_text("host key")
    names = tmp_path / "names"
    names.write_text("a b\n")
    service = dataclasses.replace(RECORD.services[0], key_path=str(key))
    record = dataclasses.replace(RECORD, services=(service,))
    files = guestconfig.config_files(record, hid, names, 7, tmp_path)
    assert files["keys/hid.pem"] == b"host key"
    assert files["keys/echo.pem"] == b"service key"
    assert files["names"] == b"a b\n"
    node = parse_config(json.loads(files["node.json"]))
    assert (node.kind, node.attach, node.ports[0].mtu, node.seed) == ("guest", "direct", 9000, 7)
    agent = json.loads(files["guest.json"])
    assert agent["services"][0] == {
        "name": "echo",
        "kind": "echo",
        "sid": "SID:" + "2" * 40,
        "key": "/run/xiatb/keys/echo.pem",
        "options": {"x": 1},
    }
    assert not (tmp_path / "guest-node.json").exists()


def test_the_combined_initrd_is_private(tmp_path):
    (tmp_path / "base").write_bytes(b"x" * 700)
    guestconfig.write_initrd(tmp_path / "base", {"guest.json": b"{}"}, tmp_path / "initrd")
    data = (tmp_path / "initrd").read_bytes()
    assert data[:700] == b"x" * 700
    assert data[1024:1030] == b"070701"
    assert (tmp_path / "initrd").stat().st_mode & 0o777 == 0o600
