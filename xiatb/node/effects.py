"""What the protocol cores of a node ask of the process that runs them.

`HostJoin`, `RouterJoin`, `LinkState` and `ControlPlane` do no I/O: they return a list of
these values from `effects()`, in the order in which they are to be carried out.
Keys are the 24 bytes of an XID (type u32 big endian, id 20 bytes); MACs are 6 bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from xiatb.wire.walk import Entry
from xiatb.wire.xid import XID


class SendJoin(NamedTuple):
    """Send `payload` in an Ethernet frame of type 0x9991 to `dst_mac` at `port`."""

    port: int
    dst_mac: bytes
    payload: bytes


class SendRouting(NamedTuple):
    """Send `payload` at `port` as XIP(FID broadcast -> SID_XROUTE) / XDGRAM, link local."""

    port: int
    payload: bytes


class SetRoute(NamedTuple):
    """Put `entry` in the route table of the type of `key` (24 bytes), replacing what was there."""

    key: bytes
    entry: Entry


class DelRoute(NamedTuple):
    """Take the entry of `key` (24 bytes) out of its route table."""

    key: bytes


class SetNeighbour(NamedTuple):
    """`hid_key` (24 bytes) is reached at `port` with Ethernet address `mac`: XARP need not ask."""

    port: int
    hid_key: bytes
    mac: bytes


class ForgetNeighbour(NamedTuple):
    """`hid_key` is no longer at `port`: drop its XARP entry."""

    port: int
    hid_key: bytes


class Locator(NamedTuple):
    """A host is joined: its address is now `RE ad own-HID`, its gateway `router_hid` at `port`.

    `mtu` is that of the router's port in bytes of XIP; `changed` is False when only the
    gateway's MAC or MTU or nothing at all differs from the locator told before. `gateway_ip` is the
    IPv4 address (4 bytes) by which the AD is reached over IP, zeros when it has none.
    """

    ad: XID
    router_hid: XID
    port: int
    router_mac: bytes = b""
    mtu: int = 1500
    changed: bool = True
    gateway_ip: bytes = bytes(4)


class LocatorLost(NamedTuple):
    """A host has no router any more; sockets keep their addresses until the next Locator."""

    port: int = -1


class HostJoined(NamedTuple):
    """A host joined at this router (or joined anew, or joined as was expected of it).

    `seq` is the sequence number of its JOIN; `record` the signed JOIN itself, which is the
    proof of attachment that routing carries through the AD.
    """

    hid: XID
    port: int
    mac: bytes
    seq: int
    record: bytes = b""


class HostLeft(NamedTuple):
    """A host is no longer attached here: it left, was detached, timed out or moved."""

    hid: XID
    port: int = -1
    reason: str = ""


class HostMoved(NamedTuple):
    """Routing knows a newer attachment (`seq`) of a host that was attached here."""

    hid: XID
    seq: int
    router: XID


class RouterAt(NamedTuple):
    """Routing has (or has no longer) a neighbour router at `port`."""

    port: int
    present: bool


class Log(NamedTuple):
    """Something worth a line in the node's log; `level` is debug, info, warning or error."""

    level: str
    message: str


Effect = (
    SendJoin
    | SendRouting
    | SetRoute
    | DelRoute
    | SetNeighbour
    | ForgetNeighbour
    | Locator
    | LocatorLost
    | HostJoined
    | HostLeft
    | HostMoved
    | RouterAt
    | Log
)
