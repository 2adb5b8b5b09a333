"""How rate, delay, loss and the like are put on a link: which means this host has, and its commands.

Rate is a token bucket (TBF) at the sending node's egress. The rest comes after it, in the link's middle:
netem where the kernel has netem, else an eBPF program where frames are only lost (`lossprogram`), else a
delay-line process (`delayline`). Never silently none: what cannot be done is a HostNotAbleError, and the
backend chosen is recorded in the state file and every manifest.

Every command is a `replace`, which changes what is there in place: frames that wait are kept.
"""

from __future__ import annotations

import json

from xiatb.errors import HostNotAbleError
from xiatb.lab.plan import Impairment
from xiatb.lab.runner import Runner

NETEM, LOSS, DELAY_LINE, NONE = "netem", "tc-bpf", "delay-line", "none"
_FRAME = 14
_AVERAGE_FRAME = 500
"""assumed when a byte budget must be given to netem as a number of packets"""
_ASSUMED_RATE = 10**10
"""bit/s that a link without a rate may carry, for the same budget"""

Command = list[str]


def rate_command(device: str, mtu: int, impairment: Impairment) -> Command | None:
    """The tc command that shapes; None without a rate. Burst: max(16 KB, 2 ms, one frame), as measured in
    reference/dataplane.md section 5; `limit` is the queue in bytes."""
    if impairment.rate is None:
        return None
    burst = max(16384, impairment.rate // 8 * 2 // 1000, mtu + _FRAME)
    return [
        *("tc", "qdisc", "replace", "dev", device, "root", "handle", "1:", "tbf"),
        *("rate", f"{impairment.rate}bit", "burst", str(burst)),
        *("limit", str(max(impairment.queue, burst, mtu + _FRAME))),
    ]


def netem_command(device: str, impairment: Impairment) -> Command | None:
    """The tc command for everything but rate; None when nothing is asked for.

    tc-netem(8); without a distribution its jitter is uniform. Its queue holds what is on the way: rate times
    delay."""
    if not impairment.needs_delay_line:
        return None
    rate = impairment.rate or _ASSUMED_RATE
    on_the_way = rate * (impairment.delay + impairment.jitter) // 8 // 10**9
    limit = max(1000, 2 * on_the_way // _AVERAGE_FRAME)
    command = [*clear_command(device, "replace"), "handle", "10:", "netem", "limit", str(limit)]
    if impairment.delay:
        command += ["delay", f"{impairment.delay / 1000:g}us"]
    if impairment.jitter:
        command += [f"{impairment.jitter / 1000:g}us"]
    command += _loss(impairment)
    for word in ("duplicate", "reorder"):
        share = getattr(impairment, word)
        if share and (word != "reorder" or impairment.delay):
            command += [word, f"{share / 10_000:g}%"]
    return command


def clear_command(device: str, verb: str = "del") -> Command:
    """The tc command that takes the root qdisc off."""
    return ["tc", "qdisc", verb, "dev", device, "root"]


def statistics_command(device: str) -> Command:
    """The tc command that tells a device's qdiscs as JSON."""
    return ["tc", "-s", "-j", "qdisc", "show", "dev", device]


def drops(told: str) -> int:
    """Frames that the root qdisc has dropped, from what `statistics_command` printed; 0 without one."""
    qdiscs = json.loads(told or "[]")
    return sum(int(one.get("drops", 0)) for one in qdiscs if one.get("root"))


def _loss(impairment: Impairment) -> Command:
    chain = impairment.loss_chain
    if chain is not None:
        return ["loss", "gemodel", *(f"{100 * share:.7g}%" for share in chain)]
    return ["loss", "random", f"{impairment.loss / 10_000:g}%"] if impairment.loss else []


def probe_netem(runner: Runner) -> bool:
    """Whether the kernel really takes a netem qdisc, tried on a loopback in a throw-away namespace."""
    return _probe(runner, ["netem", "delay", "1ms"])


def require_rate(runner: Runner) -> None:
    """Raises HostNotAbleError when the kernel has no token bucket."""
    if not _probe(runner, ["tbf", "rate", "10mbit", "burst", "16384", "limit", "65536"]):
        hint = "load the sch_tbf module, or leave rate: out of the topology"
        raise HostNotAbleError("this kernel cannot shape: no TBF qdisc", hint=hint)


def _probe(runner: Runner, qdisc: list[str]) -> bool:
    argv = ["unshare", "--net", "--", "tc", "qdisc", "add", "dev", "lo", "root", *qdisc]
    return runner.run(argv, check=False).returncode == 0
