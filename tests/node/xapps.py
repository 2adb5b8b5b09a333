"""Blocking programs for the ring tests: `python -m tests.node.xapps MODE ...`."""

from __future__ import annotations

import json
import sys
from typing import Any

from xiatb.node import xsocket as x


def tell(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def code_of(function: Any, *arguments: Any) -> int | None:
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return None


def stream_server(name: str) -> None:
    sid = x.XmakeNewSID()
    listener = x.Xsocket(x.XSOCK_STREAM)
    dag = x.Xgetaddrinfo(None, sid)
    x.Xbind(listener, dag)
    x.XregisterName(name, dag)
    x.Xlisten(listener, 5)
    second = x.Xsocket(x.XSOCK_STREAM)
    tell(
        ready=True,
        dag=dag,
        second=code_of(x.Xbind, second, dag),
        accepts=x.Xgetsockopt(listener, x.SO_ACCEPTCONN),
    )
    while True:
        socket, _peer = x.Xaccept(listener)
        while data := x.Xrecv(socket, 1000):
            x.Xsend(socket, data.upper())
        x.Xclose(socket)


def stream_client(name: str) -> None:
    socket = x.Xsocket(x.XSOCK_STREAM)
    early = code_of(x.Xsend, socket, b"x")
    x.Xconnect(socket, name)
    again = code_of(x.Xconnect, socket, name)
    x.Xsend(socket, b"hello")
    peeked, got = x.Xrecv(socket, 2, x.MSG_PEEK), x.Xrecv(socket, 100)
    x.Xsetsockopt(socket, x.XOPT_BLOCK, 0)
    would_block = code_of(x.Xrecv, socket, 1)
    names = x.Xgetsockname(socket), x.Xgetpeername(socket)
    x.Xclose(socket)
    with x.XSocket() as other:
        other.connect(name)
        other.settimeout(0.05)
        timed_out = False
        try:
            other.recv(1)
        except TimeoutError:
            timed_out = True
        other.settimeout(None)
        other.sendall(b"z" * 300_000)
        size = 0
        while size < 300_000:
            size += len(other.recv(65536))
        other.shutdown(1)
        end = other.recv(1)
    tell(got=(peeked + b"|" + got).decode(), early=early, again=again, would_block=would_block,
         timed_out=timed_out,
         size=size, end=end.decode(), names=names, closed=code_of(x.Xrecv, socket, 1),
         host=x.XreadLocalHostAddr(x.Xsocket(x.XSOCK_DGRAM)))  # fmt: skip


def datagram_server() -> None:
    socket = x.Xsocket(x.XSOCK_DGRAM)
    dag = x.Xgetaddrinfo(None, x.XmakeNewSID())
    x.Xbind(socket, dag)
    tell(ready=True, dag=dag)
    while True:
        data, source = x.Xrecvfrom(socket, 2000)
        x.Xsendto(socket, data[::-1], 0, source)


def datagram_client(dag: str) -> None:
    socket = x.Xsocket(x.XSOCK_DGRAM)
    unbound = code_of(x.Xrecvfrom, socket, 10)
    x.Xsendto(socket, b"abcdef", 0, dag)
    data, source = x.Xrecvfrom(socket, 3)
    x.Xconnect(socket, dag)
    x.Xsend(socket, b"xyz")
    tell(data=data.decode(), source=source, unbound=unbound, again=x.Xrecv(socket, 10).decode(),
         too_long=code_of(x.Xsendto, socket, bytes(70000), 0, dag))  # fmt: skip


def lookup(dag: str = "") -> None:
    socket = x.Xsocket(x.XSOCK_DGRAM)
    tell(host=x.XreadLocalHostAddr(socket), name=x.XgetNamebyDAG(dag) if dag else "")


def send_and_exit(name: str) -> None:
    socket = x.Xsocket(x.XSOCK_STREAM)
    x.Xconnect(socket, name)
    x.Xsend(socket, b"y" * 500_000)
    x.Xclose(socket)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
