"""Values that several migration tests need."""

from __future__ import annotations

from xiatb.identity.keys import KeyPair
from xiatb.migration import messages as m
from xiatb.wire.xid import XidType

KEYS = [KeyPair.from_seed(bytes([n]) * 32) for n in range(1, 5)]
SIDS = [key.xid(XidType.SID) for key in KEYS]
HID = str(KEYS[3].xid(XidType.HID))
JOB = "0123abcd"
UUID = "11111111-2222-3333-4444-555555555555"
DISK = m.Disk(
    target="vda", path="/var/lib/libvirt/images/vm1.qcow2", size=1 << 24, format="qcow2", allocated=1 << 20
)
REQUEST = m.Request(
    job=JOB,
    guest="vm1",
    uuid=UUID,
    hid=HID,
    services=(str(SIDS[2]),),
    machine="pc-q35-7.2",
    accel="tcg",
    image="abc",
    memory=64 << 20,
    port="tap0",
    disks=(DISK,),
    storage=True,
)
CAPABILITIES = m.Capabilities(
    host="hv1",
    qemu=7002000,
    libvirt=9000000,
    machines=("pc-q35-7.2",),
    accel="tcg",
    memory_free=1 << 30,
    disk_free=1 << 34,
)
TOKEN = "ab" * 16
CHANNELS = tuple(m.Channel(kind=kind, index=0, token=TOKEN) for kind in m.KINDS)
EXAMPLES: list[m.Message] = [
    CAPABILITIES,
    REQUEST,
    m.Examine(job=JOB, request=REQUEST),
    m.Examined(job=JOB, code="no-room", reason="too big"),
    m.Accept(job=JOB, channels=CHANNELS),
    m.Delegation(job=JOB, join="01ab"),
    m.Reject(job=JOB, code="no-room", reason="too big"),
    m.Progress(job=JOB, phase="precopy", passes=2, transferred=1, remaining=2, rate=3),
    m.Switchover(job=JOB, t_stop=5),
    m.Switched(job=JOB, t_stop=5),
    m.Inquire(job=JOB, guest="vm1", uuid=UUID),
    m.Outcome(job=JOB, fate="here", t_resume=6, locator="RE AD:x"),
    m.Recover(job=JOB),
    m.Pages(job=JOB, digests={"pc.ram": "00112233445566ff"}, cost=9, faults=m.Faults(count=1, max_us=5)),
    m.Resumed(job=JOB, t_resume=6),
    m.Attached(job=JOB, locator="RE AD:x", t_attached=7),
    m.Commit(job=JOB),
    m.Committed(job=JOB, t_commit=8),
    m.Abort(job=JOB, code="cancelled", reason="why not"),
    m.Aborted(job=JOB, leftover=("a file",)),
    m.Release(job=JOB),
]
