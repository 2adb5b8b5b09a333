"""Name service and rendezvous on real nodes: registration at the join, moves, both ends at once."""

from __future__ import annotations

import pytest

from tests.node.minilab import Client, MiniLab, key_of, told
from tests.node.namespaces import ip, needs_root
from xiatb.node.services import registration
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.rendezvous import via, with_rendezvous
from xiatb.wire.xid import SID_NS, SID_RENDEZVOUS, XidType

pytestmark = [needs_root, pytest.mark.netns]
APPS = "tests.node.apps"
XAPPS = "tests.node.xapps"


@pytest.fixture(autouse=True)
def keys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XIA_KEYS", str(tmp_path_factory.mktemp("keys")))


def write_services(lab: MiniLab, router: str, ad: str, **more: DAG) -> None:
    """The lab's hosts file, with both services on `router`."""
    place = lab.locator(router, ad)
    names = {"ns": served(place, SID_NS), "rendezvous": served(place, SID_RENDEZVOUS), **more}
    text = "".join(f"{name}.{lab.net.tag}.xia {dag}\n" for name, dag in names.items())
    (lab.tmp / "hosts.xia").write_text(text)


def triangle(lab: MiniLab) -> None:
    """r0 in ad0 with the services, r1 in ad1, r2 in ad2; h1 and h2 have a link to each, the first one up."""
    for index in range(3):
        lab.node(f"r{index}", "router", ad=f"ad{index}")
    lab.node("h1", "host")
    lab.node("h2", "host")
    for a, b in (("r1", "r0"), ("r2", "r0"), ("h1", "r1"), ("h1", "r2"), ("h2", "r2"), ("h2", "r1")):
        lab.link(a, b)
    for host in ("h1", "h2"):
        ip("-n", lab.net[host], "link", "set", "eth1", "down")
    write_services(lab, "r0", "ad0")
    for name in ("r0", "r1", "r2", "h1", "h2"):
        lab.start(name)


def told_services(lab: MiniLab, client: Client, host: str, ad: str) -> None:
    """Waits until both services have taken a host's word that it is in an AD. They may have before `client`
    began to listen; else the host tells when they have, and they must know it then."""
    wanted = str(lab.locator(host, ad))
    name, hid = f"{host}.{lab.net.tag}.xia", str(lab.hid(host))
    services = lab.client("r0")
    while True:
        said = services.ask("names")
        names = {row["name"]: row["dag"] for row in said["names"]}
        hosts = {row["hid"]: row["dag"] for row in said["hosts"]}
        if names.get(name) == hosts.get(hid) == wanted:
            return
        client.wait_event("registered")


def move(lab: MiniLab, host: str) -> None:
    """Takes a host's first link away and gives it its second."""
    ip("-n", lab.net[host], "link", "set", "eth0", "down")
    ip("-n", lab.net[host], "link", "set", "eth1", "up")


def test_names_follow_a_host(lab: MiniLab) -> None:
    triangle(lab)
    h1, h2 = lab.joined("h1"), lab.joined("h2")
    server = lab.app("h2", XAPPS, "stream_server", "up.lab.xia")
    dag = told(server)["dag"]
    assert h1.ask("resolve", name="up.lab.xia")["dag"] == dag
    assert h1.ask("name_of", dag=dag)["name"] == "up.lab.xia"
    found = told(lab.app("h1", XAPPS, "lookup", dag))
    assert found["name"] == "up.lab.xia" and found["host"][2] == "IP:0.0.0.0"
    assert h1.error("resolve", name="down.lab.xia") == "ENOENT"
    assert h1.error("name_of", dag=str(lab.locator("h9", "ad1"))) == "ENOENT"
    forged = registration("up.lab.xia", lab.locator("h1", "ad1"), key_of("h1"), 2**63)
    assert h1.error("register", record=forged.hex()) == "EACCES"
    move(lab, "h2")
    told_services(lab, h2, "h2", "ad1")
    assert h1.ask("resolve", name=f"h2.{lab.net.tag}.xia")["dag"] == str(lab.locator("h2", "ad1"))
    sid = DAG.parse(dag).intent
    moved = str(served(lab.locator("h2", "ad1"), sid))
    while h1.ask("resolve", name="up.lab.xia")["dag"] != moved:
        assert server.poll() is None
    assert told(lab.app("h1", XAPPS, "stream_client", "up.lab.xia"))["got"] == "HE|HELLO"


def test_static_names_of_services_follow_their_host(lab: MiniLab) -> None:
    triangle(lab)
    service = served(lab.locator("h2", "ad2"), key_of("svc").xid(XidType.SID))
    write_services(lab, "r0", "ad0", svc=service, h2=lab.locator("h2", "ad2"))
    h2 = lab.joined("h2")
    move(lab, "h2")
    told_services(lab, h2, "h2", "ad1")
    lab.joined("h1")
    answer = lab.client("h1").ask("resolve", name=f"svc.{lab.net.tag}.xia")
    assert answer["dag"] == str(served(lab.locator("h2", "ad1"), service.intent))


def test_rendezvous_redirects(lab: MiniLab) -> None:
    triangle(lab)
    h1, h2 = lab.joined("h1"), lab.joined("h2")
    meeting = served(lab.locator("r0", "ad0"), SID_RENDEZVOUS)
    old = lab.locator("h2", "ad2")
    move(lab, "h2")
    told_services(lab, h2, "h2", "ad1")
    lab.client("r2").ask("guest_detach", hid=str(lab.hid("h2")))
    for address in (via(meeting, old), with_rendezvous(old, meeting)):
        assert h1.ask("ping", dag=str(address), count=3, interval=0.01, timeout=2)["received"] == 3
    assert h1.ask("ping", dag=str(old), count=1, timeout=0.5)["received"] == 0
    nobody = via(meeting, lab.locator("h9", "ad2"))
    assert h1.ask("ping", dag=str(nobody), count=1, timeout=2)["received"] == 0
    counted = lab.client("r0").ask("handlers", read="core/local/rendezvous.unknown")["value"]
    assert int(counted) >= 1


def test_a_stream_survives_both_ends_moving_at_once(lab: MiniLab) -> None:
    triangle(lab)
    h1, h2 = lab.joined("h1"), lab.joined("h2")
    told_services(lab, h2, "h2", "ad2")
    server = lab.app("h2", APPS, "sink", "svc")
    source = lab.app("h1", APPS, "source", told(server)["dag"], "3000000", "1", "1000000")
    assert told(source)["connected"]
    for host in ("h1", "h2"):
        ip("-n", lab.net[host], "link", "set", "eth0", "down")
    for host in ("h1", "h2"):
        ip("-n", lab.net[host], "link", "set", "eth1", "up")
    told_services(lab, h1, "h1", "ad2")
    told_services(lab, h2, "h2", "ad1")
    sent, got = told(source), told(server)
    assert got["size"] == 3_000_000 and sent["digest"] == got["digest"]
    # More when the kernel tells late that a link is up: a new join at the same place counts, too.
    assert min(sent["stats"]["moves"], got["stats"]["moves"]) >= 1
    redirected = lab.client("r0").ask("handlers", read="core/local/rendezvous.redirected")["value"]
    assert int(redirected) > 0
