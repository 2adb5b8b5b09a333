"""Links changed while the lab is up, on the real kernel: nothing in the nodes notices but the frames."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.labs import TestLab, needs_root, running
from tests.lab.test_netns_links import crossing, frame, port, receive
from xiatb.cli.main import main
from xiatb.lab.client import LabClient
from xiatb.lab.state import read_state
from xiatb.node.control_protocol import ControlError

pytestmark = [pytest.mark.netns, needs_root, pytest.mark.alone]

PLAIN = """
name: x
nodes:
  h1: {kind: host}
  h2: {kind: host}
  r1: {kind: router, ad: ad1}
links:
  - h1 -- r1
  - {endpoints: [h2, r1], impairable: false}
"""
NAME = "h1:eth0--r1:eth0"
_SO_RCVBUFFORCE = 33


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    with running(tmp_path_factory.mktemp("lab"), PLAIN) as (one, _):
        yield one


@pytest.fixture(autouse=True)
def _clear(lab: TestLab) -> Iterator[None]:
    """Each test begins with nothing set."""
    yield
    change(lab, replace=True)


def change(lab: TestLab, replace: bool = False, source: str | None = None, **values: str) -> dict[str, Any]:
    more = {"from": source} if source else {}
    with LabClient(lab.name, timeout=30) as client:
        return client.request(
            "link_set", params={"a": "h1", "b": "r1", "set": values, "replace": replace, **more}
        )


def roomy(lab: TestLab, node: str) -> socket.socket:
    """A port that keeps all frames of a test until they are read."""
    sock = port(lab, node)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
    return sock


def caught(sink: socket.socket) -> list[bytes]:
    """What has come and comes within 0.2 s."""
    frames = []
    sink.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while True:
            frames.append(receive(sink))
    return frames


def test_a_plain_link_gets_a_delay_and_loses_it_again(lab: TestLab) -> None:
    with port(lab, "h1") as source, port(lab, "r1") as sink:
        assert crossing(source, sink) < 0.005
        link = change(lab, delay="20ms")
        assert link["backend"] in ("netem", "delay-line")
        assert 0.020 <= crossing(source, sink) < 0.026
        assert 0.020 <= crossing(sink, source) < 0.026
        change(lab, delay="5ms", source="h1")
        assert 0.005 <= crossing(source, sink) < 0.010
        assert 0.020 <= crossing(sink, source) < 0.026
        assert change(lab, replace=True)["backend"] == "none"
        assert crossing(source, sink) < 0.005


def test_new_numbers_lose_no_frame_that_is_on_the_way(lab: TestLab) -> None:
    change(lab, delay="300ms")
    with port(lab, "h1") as source, port(lab, "r1") as sink:
        for number in range(50):
            source.send(frame(60 + number))
        change(lab, delay="310ms", loss="0%")
        change(lab, delay="1ms")
        for number in range(50, 100):
            source.send(frame(60 + number))
        sink.settimeout(5)
        frames = [receive(sink) for _ in range(100)]
        assert sorted(map(len, [*frames, *caught(sink)])) == [60 + number for number in range(100)]
        source.send(frame(60))
        change(lab, replace=True)  # lets what waits arrive, then the kernel forwards
        source.send(frame(61))
        assert sorted(map(len, caught(sink))) == [60, 61]


def test_parameters_merge_and_the_truth_is_told(lab: TestLab) -> None:
    change(lab, delay="10ms", loss="1%")
    link = change(lab, rate="50mbit", jitter="1ms", source="r1")
    assert link["forward"]["set"] == {"delay": "10ms", "loss": "1%"}
    assert link["backward"]["set"] == {
        "rate": "50mbit", "delay": "10ms", "jitter": "1ms", "loss": "1%", "queue": "256k",
    }  # fmt: skip
    state = read_state(lab.paths)
    assert state.links[NAME].backward.jitter == 10**6
    assert state.shaping_backend in ("tbf+netem", "tbf+delay-line")
    status = json.loads(lab.cli("status", lab.name, "-o", "json").stdout)
    (told,) = [one for one in status["links"] if one["name"] == NAME]
    assert (told["loss_ppm"], told["backward"]["rate"], told["state"]) == (10_000, 50_000_000, "up")
    shown = lab.cli("link", "show", "-l", lab.name, "r1", "h1")
    assert "> delay 10ms loss 1%; < rate 50mbit delay 10ms jitter 1ms loss 1% queue 256k" in shown.stdout


def test_bursts_duplicates_and_reordering_happen(lab: TestLab) -> None:
    change(lab, loss="20%", burst="5")
    with port(lab, "h1") as source, roomy(lab, "r1") as sink:
        for number in range(2000):
            source.send(frame(60 + number % 500))
        assert 0.65 < len(caught(sink)) / 2000 < 0.92
        change(lab, replace=True, duplicate="50%")
        for _ in range(400):
            source.send(frame(60))
        assert 500 < len(caught(sink)) < 700
        change(lab, replace=True, delay="30ms", reorder="30%")
        for number in range(200):
            source.send(frame(60 + number))
        lengths = list(map(len, caught(sink)))
        assert sorted(lengths) == [60 + number for number in range(200)] != lengths


def test_links_that_only_lose_frames_need_no_process(lab: TestLab) -> None:
    link = change(lab, loss="25%", burst="2", source="h1")
    if link["backend"] == "netem":
        pytest.skip("this kernel has netem")
    assert link["backend"] == "tc-bpf"
    assert f"delay line {NAME}" not in read_state(lab.paths).processes
    with port(lab, "h1") as source, roomy(lab, "r1") as sink:
        for _ in range(1000):
            source.send(frame(70))
        link = change(lab, loss="100%", source="r1")  # in place: what it has counted stays
        taken, lost = (link["forward"]["counters"][name] for name in ("taken", "lost"))
        assert taken >= 1000 and 150 < lost < 350
        got = [one for one in caught(sink) if len(one) == 70]
        assert 1000 - lost <= len(got) <= taken - lost, "the lab's own frames are taken and lost, too"
        sink.send(frame(70))
        assert not any(len(one) == 70 for one in caught(source))
    shown = lab.cli("link", "show", "-l", lab.name, "h1", "r1").stdout
    assert "tc-bpf" in shown and "loss 100%" in shown


def test_losses_and_delays_take_over_from_each_other(lab: TestLab) -> None:
    """Nothing on the way is lost when the program gives way to the delay line, and back."""
    with port(lab, "h1") as source, roomy(lab, "r1") as sink:
        sent = 0
        for values in ({"loss": "0.0001%"}, {"delay": "20ms"}, {"delay": "0ms"}, {"loss": "0%"}):
            for _ in range(50):
                source.send(frame(80 + sent))
                sent += 1
            change(lab, **values)
        assert sorted(len(one) for one in caught(sink) if len(one) >= 80) == list(range(80, 80 + sent))


def test_a_rate_comes_and_goes(lab: TestLab) -> None:
    with port(lab, "h1") as source, roomy(lab, "r1") as sink:
        for rate, low, high in (("8mbit", 0.19, 0.5), (None, 0.0, 0.1)):
            link = change(lab, rate=rate or "none", queue="1M")
            assert link["forward"]["queue_dropped"] == (0 if rate else None)
            assert low < min(passing(source, sink) for _ in range(3)) < high


def passing(source: socket.socket, sink: socket.socket) -> float:
    """Seconds for 200 frames; with others at work some more, so that the shortest of several tells."""
    begin = time.monotonic()
    for _ in range(200):
        source.send(frame(1500))
    for _ in range(200):
        receive(sink)
    return time.monotonic() - begin


def test_a_full_queue_drops_and_says_so(lab: TestLab) -> None:
    change(lab, rate="1mbit", queue="20k")
    with port(lab, "h1") as source, roomy(lab, "r1") as sink:
        source.setblocking(False)
        begin = time.monotonic()
        for _ in range(100):
            with contextlib.suppress(OSError):
                source.send(frame(1000))
        left = int((time.monotonic() - begin) / 0.008)  # frames that made room meanwhile
        assert len(caught(sink)) < 60 + left
    with LabClient(lab.name) as client:
        link = client.request("link_show", params={"a": "h1", "b": "r1"})["links"][0]
    assert link["forward"]["queue_dropped"] >= 40 - left
    assert link["backward"]["queue_dropped"] == 0


def test_a_pulled_cable_takes_the_carrier_and_gives_it_back(lab: TestLab) -> None:
    def carrier(node: str) -> str:
        return lab.cli(
            "exec", "-l", lab.name, node, "--", "cat", "/sys/class/net/eth0/carrier"
        ).stdout.strip()

    change(lab, delay="1ms")
    assert lab.cli("link", "down", "-l", lab.name, "h1", "r1").returncode == 0
    assert (carrier("h1"), carrier("r1")) == ("0", "0")
    assert "down" in lab.cli("link", "show", "-l", lab.name, "h1").stdout
    with port(lab, "h1") as source, port(lab, "r1") as sink:
        source.send(frame(60))
        assert caught(sink) == []
        assert change(lab, delay="2ms")["state"] == "down"
        assert lab.cli("link", "up", "-l", lab.name, "r1", "h1").returncode == 0
        assert (carrier("h1"), carrier("r1")) == ("1", "1")
        assert crossing(source, sink) < 0.02


def test_the_nodes_keep_their_interfaces_and_their_network(lab: TestLab) -> None:
    def interfaces() -> list[str]:
        done = lab.cli("exec", "-l", lab.name, "h1", "--", "ip", "-br", "link")
        return sorted(line.split()[0] for line in done.stdout.splitlines())

    before = interfaces()
    change(lab, delay="5ms", rate="10mbit")
    assert interfaces() == before
    done = lab.cli("ping", "-l", lab.name, "h1", "h2", "-c", "3", "-i", "0.1", "-o", "json")
    assert 10 <= json.loads(done.stdout)["rtt_min_ms"] < 20


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["h1", "r1", "--loss", "150%"], 2, "0% to 100%"),
        (["h1", "r1", "--delay", "-1ms"], 2, "0 to 10s"),
        (["h1", "r1", "--jitter", "1ms"], 2, "0 to the delay"),
        (["h1", "r1", "--speed", "1mbit"], 2, "No such option"),
        (["h1", "r1"], 2, "nothing to set"),
        (["h1", "h2", "--loss", "1%"], 2, "no link between h1 and h2"),
        (["h1", "r2", "--loss", "1%"], 2, "known: h1, h2, r1"),
        (["h1", "r1", "--loss", "1%", "--from", "h2"], 2, "no end of"),
        (["h2", "r1", "--loss", "1%"], 1, "no middle"),
    ],
)
def test_what_cannot_be_is_refused(
    lab: TestLab,
    words: list[str],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert main(["link", "set", "-l", lab.name, *words]) == code
    assert told in capsys.readouterr().err


def test_unknown_parameters_are_refused_on_the_socket_too(lab: TestLab) -> None:
    with pytest.raises(ControlError, match="unknown link parameter 'speed'"):
        change(lab, speed="1mbit")


def test_a_link_without_a_middle_still_takes_a_rate(lab: TestLab) -> None:
    assert lab.cli("link", "set", "-l", lab.name, "h2", "r1", "--rate", "10mbit").returncode == 0
    with LabClient(lab.name) as client:
        link = client.request("link_show", params={"a": "h2", "b": "r1"})["links"][0]
    assert (link["forward"]["rate"], link["impairable"]) == (10**7, False)


def test_a_killed_delay_line_is_told_of_and_made_again(lab: TestLab) -> None:
    if change(lab, delay="1ms")["backend"] != "delay-line":
        pytest.skip("this kernel has netem")
    line = read_state(lab.paths).processes[f"delay line {NAME}"]
    control = lab.paths.links / "0.sock"
    assert stat.S_IMODE(os.stat(control).st_mode) == 0o600
    line.signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while line.alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lab.cli("status", lab.name).returncode == 1
    assert "dead" in lab.cli("link", "show", "-l", lab.name, "h1", "r1").stdout
    assert change(lab, delay="15ms")["state"] == "up"
    with port(lab, "h1") as source, port(lab, "r1") as sink:
        assert 0.015 <= crossing(source, sink) < 0.022
    assert lab.cli("status", lab.name).returncode == 0


def test_a_delay_line_refuses_nonsense_and_goes_on(lab: TestLab, tmp_path: Path) -> None:
    if change(lab, delay="1ms")["backend"] != "delay-line":
        pytest.skip("this kernel has netem")
    for line in (b"no json\n", b"[]\n", b'{"op":"jump"}\n', b'{"op":"set","forward":{"speed":1}}\n'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect(str(lab.paths.links / "0.sock"))
            client.sendall(line)
            assert json.loads(client.recv(65536))["ok"] is False
    with port(lab, "h1") as source, port(lab, "r1") as sink:
        assert 0.001 <= crossing(source, sink) < 0.006
