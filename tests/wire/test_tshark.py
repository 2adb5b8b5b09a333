"""Wireshark's XIP dissector as an independent reader of what we emit.

It checks addresses by XIA-for-Linux's rules and prints a list of nodes only when they hold.
"""

import random
import shutil
import subprocess

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.scapy_layers import XIP
from xiatb.wire.xid import XID, XidType

# tshark 4.0 keeps the offset of a node's edges in eight bits: from the ninth node of a packet on
# it shows bytes of the header in their place. So both addresses together have 8 nodes here.
MAX_NODES = 4
NAMES = {XidType.AD: "ad", XidType.HID: "hid"}


def random_dag(rng: random.Random) -> DAG:
    """Return an address of ADs and HIDs, types that XIA-for-Linux knows, too."""
    count = rng.randint(1, MAX_NODES)
    nodes = [XID(rng.choice(list(NAMES)), rng.randbytes(20)) for _ in range(count)]
    rows: list[list[int]] = [[] for _ in range(count + 1)]
    for node in range(count):
        fathers = [rows[count], *rows[:node]]
        rng.choice([row for row in fathers if len(row) < 4]).append(node)
        if node < count - 1 and len(rows[node]) < 4 and rng.random() < 0.5:
            rows[node].append(rng.randint(node + 1, count - 1))
    for row in rows:
        row[:] = list(dict.fromkeys(row))
        rng.shuffle(row)
    if not rows[count]:
        rows[count].append(0)
    return DAG(nodes, rows[:count], rows[count])


def linux_text(dag: DAG) -> list[str]:
    """Return the lines `name-id-edges` of net/xia/dag.c; edges above 9 do not occur here."""
    rows = [*dag.edges[:-1], dag.entry]
    return [
        f"{NAMES[XidType(node.type)]}-{node.id.hex()}-{''.join(map(str, row))}"
        for node, row in zip(dag.nodes, rows, strict=True)
    ]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_what_we_emit(tmp_path):
    rng = random.Random(1)
    sent = [(random_dag(rng), random_dag(rng), rng.randrange(256)) for _ in range(60)]
    path = tmp_path / "sent.pcap"
    frames = [
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=xip.ETH_P_XIP)
        / XIP(xip.build(xip.NXT_XDGRAM, dst, src, b"\0\1\0\0data", hlim=hlim))
        for dst, src, hlim in sent
    ]
    wrpcap(str(path), frames)
    fields = ["xip.version", "xip.next_hdr", "xip.payload_len", "xip.hop_limit", "xip.num_dst", "xip.num_src"]
    fields += ["xip.last_node", "xip.dst_dag_entry", "xip.src_dag_entry"]
    argv = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=|"]
    for field in fields:
        argv += ["-e", field]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    assert len(shown) == len(sent)
    for line, (dst, src, hlim) in zip(shown, sent, strict=True):
        *numbers, dst_text, src_text = line.split("|")
        assert [int(n, 0) for n in numbers] == [1, 2, 8, hlim, len(dst), len(src), 126], line
        for text, dag in ((dst_text, dst), (src_text, src)):
            assert "!" not in text
            for wanted in linux_text(dag):
                assert wanted in text, (wanted, text)
