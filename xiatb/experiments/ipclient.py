"""The probe client over IPv4: the same schedule, log and byte pattern as `probeclient`, over UDP and TCP.

Run as `python -m xiatb.experiments.ipclient` in a node of a lab with the IP baseline. It takes probeclient's
arguments, with ADDRESS:PORT in place of DAGs, and speaks the same lines. A connection that breaks or stalls
is a result here, not an error: `check` and `done` then say so within `PATIENCE_S`.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time

from xiatb.experiments.probeclient import (
    REQUEST,
    DatagramProbe,
    ProbeOptions,
    StreamProbe,
    add_arguments,
    probe,
)

PATIENCE_S = 6.0
"""How long to wait for bytes that were sent; TCP itself gives up after a quarter of an hour."""
Endpoint = tuple[str, int]


def endpoint(text: str) -> Endpoint:
    """ADDRESS:PORT; raises ValueError."""
    address, _, port = text.rpartition(":")
    socket.inet_aton(address)
    return address, int(port)


class TcpProbe(StreamProbe[Endpoint]):
    """One TCP connection to an echo."""

    async def open(self) -> None:
        """Connect; raises OSError."""
        address, port = self.options.echo
        self.reader, self.writer = await asyncio.open_connection(address, port)


class UdpProbe(DatagramProbe[Endpoint]):
    """Open-loop UDP datagrams to an echo."""

    async def open(self) -> None:
        """Open a socket; answers are stamped as they arrive."""
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._udp, self._readable)

    def _readable(self) -> None:
        while True:
            try:
                payload = self._udp.recv(2048)
            except BlockingIOError:
                return
            except OSError:  # ICMP: the network does not know the guest any more
                continue
            self.take(payload)

    def _request(self) -> None:
        now = time.monotonic_ns()
        request = REQUEST.pack(self.log.request(now), now)
        try:
            self._udp.sendto(request, self.options.responder)
        except OSError:  # no route, or a full queue: this request stays unanswered
            return


def main() -> int:
    """Parse the arguments and run the probes."""
    parser = argparse.ArgumentParser(description="Probe a guest's IPv4 echo")
    add_arguments(parser, endpoint)
    options = ProbeOptions[Endpoint](**vars(parser.parse_args()))
    return asyncio.run(probe(options, TcpProbe(options), UdpProbe(options), PATIENCE_S))


if __name__ == "__main__":
    raise SystemExit(main())
