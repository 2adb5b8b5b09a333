"""Congestion control of a migration's channels: from the option to the stream that is dialled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xiatb.cli.migrate_options import channel_controls
from xiatb.errors import UsageError
from xiatb.migration import carrier as carriers
from xiatb.migration import controlsocket
from xiatb.migration.carrier import XiaCarrier
from xiatb.migration.config import Peer


def test_a_word_for_one_channel_goes_before_one_for_all() -> None:
    assert channel_controls(()) == {}
    assert channel_controls(("bbr",)) == {"rpc": "bbr", "ram": "bbr", "nbd": "bbr"}
    assert channel_controls(("rpc=cubic", "reno")) == {"rpc": "cubic", "ram": "reno", "nbd": "reno"}


@pytest.mark.parametrize("word", ["vegas", "=bbr", "ram=", "usb=bbr", ""])
def test_words_that_mean_nothing_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match="--congestion"):
        channel_controls((word,))


@pytest.mark.parametrize("wanted", [{"ram": "vegas"}, {"usb": "bbr"}, {"ram": 1}])
def test_the_daemon_refuses_what_is_no_control_of_a_channel(wanted: dict[str, Any], tmp_path: Path) -> None:
    asked: list[Any] = []
    service = SimpleNamespace(migrate=asked.append)
    operations = controlsocket.DaemonSocket(tmp_path / "socket", service).table()  # type: ignore[arg-type]
    request = {"op": "migrate", "guest": "g", "to": "hv2", "congestion": wanted}
    answer: Any = operations["migrate"](SimpleNamespace(), request)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="congestion"):
        asyncio.run(answer)
    assert not asked


def test_a_channel_is_dialled_with_its_control(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    dialled: list[Any] = []

    async def open_connection(dag: Any, *, stack: Any, config: Any) -> Any:
        dialled.append((config.congestion, config.max_rto))
        writer = SimpleNamespace(get_extra_info=lambda name: None)
        return None, writer

    monkeypatch.setattr(carriers.aio, "open_connection", open_connection)
    monkeypatch.setattr(carriers.stack, "default", lambda path: None)
    monkeypatch.setattr(carriers.DAG, "parse", lambda text: text)
    carrier = XiaCarrier(None, tmp_path)  # type: ignore[arg-type]
    peer = Peer("hv2", None, "somewhere")  # type: ignore[arg-type]
    asyncio.run(carrier.dial(peer, "bbr"))
    asyncio.run(carrier.dial(peer))
    assert dialled == [("bbr", carriers.MAX_RTO_S), ("cubic", carriers.MAX_RTO_S)]
