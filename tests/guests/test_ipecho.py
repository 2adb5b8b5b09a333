"""The guest's part of the IP baseline: its echo, its address, what it is told at boot."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import secrets
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.guests.samples import RECORD
from xiatb.guests import domain, guestconfig, libvirtd
from xiatb.guests.agent.ipnet import IpNet
from xiatb.guests.agent.services.base import ServiceSpec
from xiatb.guests.agent.services.ipecho import IpEcho
from xiatb.lab import netlink
from xiatb.lab.baseline import GATEWAY
from xiatb.lab.namespaces import inside
from xiatb.lab.paths import NETNS_ROOT
from xiatb.node import rtnetlink


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_it_echoes_streams_and_datagrams_and_counts() -> None:
    async def scenario() -> dict[str, int]:
        port = free_port()
        service = IpEcho(ServiceSpec("_ip", "ip_echo", "", {"port": port}))
        await service.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 200_000)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), 5) == b"x" * 200_000
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            loop = asyncio.get_running_loop()
            for number in range(100):
                probe.sendto(b"%d" % number, ("127.0.0.1", port))
            back = [await asyncio.wait_for(loop.sock_recv(probe, 100), 5) for _ in range(100)]
        assert back == [b"%d" % number for number in range(100)]
        with pytest.raises(ValueError, match="counters"):
            await service.control({"op": "dance"})
        writer.close()
        return service.counters()

    told = asyncio.run(scenario())
    assert told == {"accepted": 1, "broken": 0, "bytes": 200_000, "answered": 100, "failed": 0}


def test_a_guest_is_told_its_address_only_in_labs_with_the_baseline() -> None:
    plain = guestconfig.agent_config(RECORD, 7)
    assert "ip" not in plain and len(plain["services"]) == 1
    told = guestconfig.agent_config(dataclasses.replace(RECORD, ip="10.1.1.1"), 7)
    assert told["ip"] == {"address": "10.1.1.1", "gateway": GATEWAY}
    assert [one["kind"] for one in told["services"]] == ["echo", "ip_echo"]
    assert domain.domain_xml(dataclasses.replace(RECORD, ip="10.1.1.1")) == domain.domain_xml(RECORD)


def test_libvirtd_listens_on_tcp_only_when_told(tmp_path: Path) -> None:
    quiet = libvirtd.config_files("u")["etc/libvirt/libvirtd.conf"]
    assert "listen_tcp = 0" in quiet and "--listen" not in libvirtd.argv()
    loud = libvirtd.config_files("u", "10.1.0.2")["etc/libvirt/libvirtd.conf"]
    assert 'listen_tcp = 1\nlisten_addr = "10.1.0.2"\nauth_tcp = "none"\n' in loud
    assert libvirtd.argv(listens=True)[-1] == "--listen"
    assert "listen_tls = 0" in loud


def test_an_address_needs_a_gateway() -> None:
    with pytest.raises(ValueError, match="no IPv4"):
        IpNet("lo", "").set("10.0.0.1")


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_guest_changes_its_address_as_dhcp_would() -> None:
    name = f"xt{secrets.token_hex(4)}-ip"
    subprocess.run(["ip", "netns", "add", name], check=True)

    def shown(*words: str) -> str:
        return json.dumps(json.loads(subprocess.check_output(["ip", "-n", name, "-j", *words])))

    failed: list[BaseException] = []

    def change(ip: IpNet, *addresses: str) -> None:
        try:
            with inside(NETNS_ROOT / name):
                for address in addresses:
                    ip.set(address)
        except BaseException as error:  # noqa: BLE001  told to the test's thread
            failed.append(error)

    try:
        netlink.add_tap(NETNS_ROOT / name, "eth0")
        with inside(NETNS_ROOT / name):
            rtnetlink.set_link("eth0", up=True)
        ip = IpNet("eth0", GATEWAY)
        thread = threading.Thread(target=change, args=(ip, "10.1.1.1", "10.1.1.1", "10.2.1.1"))
        thread.start()
        thread.join(10)
        assert not thread.is_alive(), "the kernel did not answer"
        assert not failed, failed
        addresses = shown("addr", "show", "dev", "eth0")
        assert '"local": "10.2.1.1", "prefixlen": 32' in addresses and "10.1.1.1" not in addresses
        ways = shown("route")
        assert f'"dst": "default", "gateway": "{GATEWAY}"' in ways and '"prefsrc": "10.2.1.1"' in ways
        change(ip, "ten")
        assert isinstance(failed.pop(), ValueError)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
