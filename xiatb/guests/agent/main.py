"""The agent: started once by the guest's init, parent of the node process and of every service.

It imports everything first and then forks, so that a slow TCG guest pays for imports once. It talks
to the host over the second serial port (docs/agent-protocol.md). Configuration: guest.json in
`/run/xiatb` (see `xiatb.guests.guestconfig`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.guests.agent import niceness, ops, serialport
from xiatb.guests.agent.children import Children
from xiatb.guests.agent.ipnet import IpNet
from xiatb.guests.agent.jobs import Jobs
from xiatb.guests.agent.netdev import bring_up
from xiatb.guests.agent.protocol import (
    MAX_REQUEST,
    LineDecoder,
    Message,
    encode,
    failure,
    success,
)

CONFIG = "/run/xiatb/guest.json"
VERSION = 1
MAX_RUNNING = 16
"""Requests worked on at a time; more are refused with EBUSY."""


class Agent:
    """Answers requests that arrive on `fd`; `children` are the node process and the services."""

    def __init__(self, fd: int, name: str, children: Children, environment: dict[str, str]) -> None:
        self._name = name
        self._children = children
        self._environment = environment
        self.ip = IpNet("eth0", "")
        """of a guest of the IP baseline: its address"""
        self._jobs = Jobs()
        self._decoder = LineDecoder(MAX_REQUEST)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pipe = serialport.SerialPipe(fd, self._data)
        self.off = asyncio.Event()

    async def run(self) -> None:
        """Announces `ready` once every service is up or has failed; returns when asked to power off."""
        self._pipe.send(encode({"event": "agent", "name": self._name, "version": VERSION}))
        announce = asyncio.ensure_future(self._announce())
        await self.off.wait()
        announce.cancel()
        await self._pipe.drain(1.0)

    async def _announce(self) -> None:
        await self._children.settled()
        self._pipe.send(encode({"event": "ready", **self._state()}))

    def _state(self) -> Message:
        return {
            "name": self._name,
            "version": VERSION,
            "ready": self._children.all_settled,
            "node": self._children.node_state,
            "services": self._children.states(),
            "boot_id": ops.boot_id(),
            "malformed": self._decoder.malformed + self._decoder.oversize,
            "dropped": self._pipe.dropped,
        }

    def _data(self, data: bytes) -> None:
        for message in self._decoder.feed(data):
            if len(self._tasks) >= MAX_RUNNING:
                self._pipe.send(encode(failure(message.get("id"), "EBUSY", "too many requests at a time")))
                continue
            task = asyncio.ensure_future(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message) -> None:
        ident = message.get("id")
        try:
            answer = success(ident, await self._operate(str(message.get("op")), message))
        except (ValueError, TypeError) as error:
            answer = failure(ident, "EINVAL", str(error))
        except KeyError as error:
            answer = failure(ident, "ENOENT", str(error.args[0]))
        except TimeoutError:
            answer = failure(ident, "ETIMEDOUT", "no answer from the service")
        except (OSError, XiatbError) as error:
            answer = failure(ident, "EIO", str(error))
        self._pipe.send(encode(answer))
        if message.get("op") == "poweroff" and answer["ok"]:
            self.off.set()

    async def _operate(self, op: str, message: Message) -> Message:
        if op == "ready":
            return self._state()
        if op == "uptime":
            return await ops.uptime(message)
        if op == "checksum":
            return await ops.checksum(message)
        if op == "write_file":
            return await ops.write_file(message)
        if op == "exec":
            return await ops.execute(message, self._environment)
        if op == "exec_start":
            return await self._jobs.start(message, self._environment)
        if op == "exec_poll":
            return await self._jobs.poll(message)
        if op == "exec_kill":
            return await self._jobs.kill(message)
        if op == "counters":
            return await self._children.counters()
        if op == "service":
            return await self._children.request(message)
        if op == "address":
            self.ip.set(str(message.get("address")))
            return {"address": message.get("address")}
        if op in ("delegate", "consent"):
            return await ops.sign(message)
        if op == "poweroff":
            return {}
        raise ValueError(f"unknown op {op[:40]!r}")


def load(path: str) -> dict[str, Any]:
    """The guest configuration; raises OSError or ValueError."""
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object")
    return value


def _network(config: dict[str, Any], ip: IpNet) -> None:
    for name, mtu in (("lo", None), ("eth0", int(config.get("mtu", 1500)))):
        try:
            bring_up(name, mtu)
        except OSError as error:
            sys.stderr.write(f"xiatb-guest: {name}: {error}\n")
    if config.get("ip"):
        try:
            ip.set(str(config["ip"].get("address")))
        except (OSError, ValueError, XiatbError) as error:
            sys.stderr.write(f"xiatb-guest: IPv4: {error}\n")


def main(path: str = CONFIG) -> int:
    """Runs the agent of the configuration at `path` until it is told to power off; returns the exit code."""
    config = load(path)
    name, addresses = str(config["name"]), config.get("ip") or {}
    ip = IpNet("eth0", str(addresses.get("gateway", "")))
    if os.getpid() != 1 and not config.get("test"):
        Path("/proc/sys/kernel/hostname").write_text(name, encoding="utf-8")
        _network(config, ip)
    environment = {"XIA_CONTROL": str(config.get("control", "")), "PYTHONPATH": "/usr/lib/xiatb"}
    os.environ.update(environment)
    children = Children(config)
    children.start()
    niceness.take(niceness.AGENT)
    fd = serialport.open_raw(str(config.get("serial", "/dev/ttyS1")))
    asyncio.run(_live(fd, name, children, environment, ip))
    if not config.get("test"):
        ops.power_off()
    return 0


async def _live(fd: int, name: str, children: Children, environment: dict[str, str], ip: IpNet) -> None:
    await children.attach()
    agent = Agent(fd, name, children, environment)
    agent.ip = ip
    await agent.run()
