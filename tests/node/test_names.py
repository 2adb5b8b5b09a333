from __future__ import annotations

import os
from pathlib import Path

import pytest

from xiatb.node.control_protocol import ControlError
from xiatb.node.names import Names, parse_hosts
from xiatb.wire.dag import DAG

ADDRESS = "RE AD:" + "1" * 40 + " HID:" + "2" * 40


def test_hosts_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts.xia"
    names = Names(path)
    with pytest.raises(ControlError) as caught:
        names.resolve("h1.lab.xia")
    assert caught.value.code == "ENOENT"
    path.write_text(f"# comment\nh1.lab.xia {ADDRESS} # here\n\nbroken\nbad.xia RE nonsense\n")
    assert names.resolve("H1.Lab.XIA") == DAG.parse(ADDRESS)
    with pytest.raises(ControlError) as caught:
        names.resolve("bad.xia")
    assert caught.value.code == "EINVAL"
    path.write_text(f"h2.lab.xia {ADDRESS}\n")
    os.utime(path, ns=(1, 1))
    assert names.resolve("h2.lab.xia") == DAG.parse(ADDRESS)
    with pytest.raises(ControlError):
        names.resolve("h1.lab.xia")


def test_addresses_resolve_to_themselves() -> None:
    names = Names(None)
    address = DAG.parse(ADDRESS)
    for text in (ADDRESS, address.dag_string(), address.url()):
        assert names.resolve(text) == address
    with pytest.raises(ControlError):
        names.resolve("RE")
    with pytest.raises(ControlError):
        names.resolve("x" * 1000)


def test_last_line_of_a_name_wins() -> None:
    assert parse_hosts("a x\na y\n") == {"a": "y"}
