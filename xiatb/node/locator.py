"""Where a node is at present: what the node process tells its applications about addresses and links."""

from __future__ import annotations

from typing import NamedTuple

from xiatb.errors import WireError
from xiatb.node.control_protocol import ControlError, Json
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.xid import XID

BROADCAST_MAC = b"\xff" * 6


class NodeLocator(NamedTuple):
    """A node's location and how its applications attach to the network.

    dag: `RE AD HID` of the node; router_hid: its gateway (itself for a router); mtu: largest XIP packet
    of the uplink in bytes; attach: "xia0" or "direct"; ifname: interface that applications open;
    gateway_mac, mac: destination and source address of their frames; epoch: grows with every change;
    rendezvous: data address of the lab's rendezvous service, None when it has none.
    """

    dag: DAG
    ad: XID
    hid: XID
    router_hid: XID
    mtu: int
    attach: str
    ifname: str
    gateway_mac: bytes
    mac: bytes
    epoch: int
    rendezvous: DAG | None = None

    def service(self, sid: XID) -> DAG:
        """The address of a service on this node."""
        return served(self.dag, sid)

    def to_json(self) -> Json:
        """The fields as JSON values."""
        return {
            "dag": str(self.dag),
            "ad": str(self.ad),
            "hid": str(self.hid),
            "router_hid": str(self.router_hid),
            "mtu": self.mtu,
            "attach": self.attach,
            "ifname": self.ifname,
            "gateway_mac": self.gateway_mac.hex(":"),
            "mac": self.mac.hex(":"),
            "epoch": self.epoch,
            "rendezvous": None if self.rendezvous is None else str(self.rendezvous),
        }

    @classmethod
    def from_json(cls, data: Json) -> NodeLocator | None:
        """A locator as `to_json` writes it; None when the node has none yet. Raises ControlError EPROTO."""
        if data.get("dag") is None:
            return None
        try:
            return cls(
                dag=DAG.parse(data["dag"]),
                ad=XID.parse(data["ad"]),
                hid=XID.parse(data["hid"]),
                router_hid=XID.parse(data["router_hid"]),
                mtu=int(data["mtu"]),
                attach=str(data["attach"]),
                ifname=str(data["ifname"]),
                gateway_mac=bytes.fromhex(data["gateway_mac"].replace(":", "")),
                mac=bytes.fromhex(data["mac"].replace(":", "")),
                epoch=int(data["epoch"]),
                rendezvous=None if data.get("rendezvous") is None else DAG.parse(data["rendezvous"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError, WireError) as error:
            raise ControlError("EPROTO", f"the node told a locator that is none: {error}") from error
