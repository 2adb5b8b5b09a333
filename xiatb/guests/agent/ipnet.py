"""The guest's IPv4 in a lab with the IP baseline: one address, and a gateway that is the same everywhere."""

from __future__ import annotations

import errno
import socket

from xiatb.node import iproute, rtnetlink


class IpNet:
    """IPv4 of one interface. `gateway` "" for a guest that has none."""

    def __init__(self, device: str, gateway: str) -> None:
        self._device = device
        self._gateway = gateway
        self._address = ""

    def set(self, address: str) -> None:
        """Use this address (dotted) in place of the one before, as DHCP would in another network.

        Raises ValueError for a guest without IPv4 or a wrong address, NetlinkError, OSError.
        """
        if not self._gateway:
            raise ValueError("this guest has no IPv4")
        try:
            socket.inet_aton(address)
        except OSError as error:
            raise ValueError(f"{address!r} is no IPv4 address") from error
        if self._address and self._address != address:
            iproute.delete_address(self._device, f"{self._address}/32")
        try:
            iproute.add_address(self._device, f"{address}/32")
        except rtnetlink.NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
        self._address = address
        iproute.set_route(f"{self._gateway}/32", device=self._device, source=address)
        iproute.set_route("0.0.0.0/0", via=self._gateway, source=address)
