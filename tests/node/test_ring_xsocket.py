"""xia-core's socket API, and the blocking socket object, on real nodes."""

from __future__ import annotations

import errno

import pytest

from tests.node.minilab import MiniLab, told
from tests.node.namespaces import needs_root
from tests.node.test_ring_sockets import APPS, both_joined
from xiatb.node import xsocket

pytestmark = [needs_root, pytest.mark.netns]
XAPPS = "tests.node.xapps"


@pytest.fixture(autouse=True)
def keys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XIA_KEYS", str(tmp_path_factory.mktemp("keys")))


def test_streams(lab: MiniLab) -> None:
    both_joined(lab)
    server = told(lab.app("h2", XAPPS, "stream_server", "up.lab.xia"))
    assert server["second"] == errno.EADDRINUSE and server["accepts"] == 1
    client = told(lab.app("h1", XAPPS, "stream_client", "UP.lab.xia"))
    assert client["got"] == "HE|HELLO"
    assert client["early"] == errno.ENOTCONN and client["again"] == errno.EISCONN
    assert client["would_block"] == errno.EAGAIN and client["timed_out"]
    assert client["size"] == 300_000 and client["end"] == ""
    assert client["names"][1] == server["dag"] and client["closed"] == errno.EBADF
    assert client["host"][:2] == [str(lab.ad("ad1")), str(lab.hid("h1"))]


def test_datagrams(lab: MiniLab) -> None:
    both_joined(lab)
    dag = told(lab.app("h2", XAPPS, "datagram_server"))["dag"]
    client = told(lab.app("h1", XAPPS, "datagram_client", dag))
    assert client["data"] == "fed" and client["again"] == "zyx" and client["source"] == dag
    assert client["unbound"] == errno.EINVAL and client["too_long"] == errno.EMSGSIZE


def test_close_then_exit_still_delivers(lab: MiniLab) -> None:
    both_joined(lab)
    server = lab.app("h2", APPS, "sink", "svc")
    lab.app("h1", XAPPS, "send_and_exit", told(server)["dag"])
    assert told(server)["size"] == 500_000


def test_without_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XIA_CONTROL", "/nonexistent/control.sock")
    socket = xsocket.Xsocket(xsocket.XSOCK_DGRAM)
    for function, arguments, code in (
        (xsocket.Xsendto, (socket, b"x", 0, "name"), errno.ENETDOWN),
        (xsocket.Xbind, (socket, "SID:" + "0" * 40), errno.EINVAL),
        (xsocket.Xbind, (socket, "nonsense"), errno.EADDRNOTAVAIL),
        (xsocket.Xlisten, (socket, 1), errno.EOPNOTSUPP),
        (xsocket.Xrecv, (99, 1), errno.EBADF),
        (xsocket.Xsocket, (xsocket.XSOCK_RAW,), errno.EPROTONOSUPPORT),
        (xsocket.Xsetsockopt, (socket, 1, 1), errno.ENOPROTOOPT),
        (xsocket.XremoveSID, ("SID:" + "0" * 40,), errno.ENOENT),
    ):
        with pytest.raises(OSError) as caught:
            function(*arguments)
        assert caught.value.errno == code, function


def test_keys_are_kept_and_removed() -> None:
    sid = xsocket.XmakeNewSID()
    assert sid.startswith("SID:")
    assert xsocket.XremoveSID(sid) == 0
    with pytest.raises(OSError):
        xsocket.XremoveSID(sid)
