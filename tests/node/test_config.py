from __future__ import annotations

import json
from pathlib import Path

import pytest

from xiatb.errors import InvalidFileError
from xiatb.node.config import NodeConfig, PortConfig, load_config, parse_config


def test_round_trip(tmp_path: Path) -> None:
    config = NodeConfig(
        name="r1", kind="router", state_dir=tmp_path, hid_key=tmp_path / "k", lab="l",
        ad="AD:" + "1" * 40, ad_public="00", ad_cert="00", names=tmp_path / "n",
        ports=[PortConfig("eth0", mtu=9000, ifname="r1-eth0")],
    )  # fmt: skip
    config.save(tmp_path / "node.json")
    assert load_config(tmp_path / "node.json") == config
    assert config.ports[0].device == "r1-eth0" and config.is_gateway


def test_all_problems_at_once() -> None:
    data = {
        "name": "h", "kind": "hots", "state_dir": "/x", "hid_key": "/k", "attach": "direct",
        "ports": [{"name": "eth0", "mtu": 10, "role": "guest"}, {"name": "eth0"}],
    }  # fmt: skip
    data["ports"][1]["role"] = "what"  # type: ignore[index]
    with pytest.raises(InvalidFileError) as caught:
        parse_config(data)
    text = "\n".join(caught.value.problems)
    for part in ("kind", "attach", "ports[0].mtu", "ports[1].role", "used twice"):
        assert part in text


@pytest.mark.parametrize(
    "data",
    [
        [], 7, {}, {"name": 1, "kind": "host", "state_dir": "/x", "hid_key": "/k"},
        {"name": "h", "kind": "host", "state_dir": "/x", "hid_key": "/k", "zzz": 1},
        {"name": "h", "kind": "host", "state_dir": "/x", "hid_key": "/k", "ports": 3},
        {"name": "h", "kind": "host", "state_dir": "/x", "hid_key": "/k", "ports": [3]},
        {"name": "h", "kind": "host", "state_dir": "/x", "hid_key": "/k",
         "ports": [{"name": "e", "mtu": "x"}]},
        {"name": "r", "kind": "router", "state_dir": "/x", "hid_key": "/k"},
    ],
)  # fmt: skip
def test_refuses(data: object) -> None:
    with pytest.raises(InvalidFileError):
        parse_config(data)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError):
        load_config(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text(json.dumps("x")[:-1])
    with pytest.raises(InvalidFileError):
        load_config(tmp_path / "bad.json")
