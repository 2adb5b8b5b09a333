"""The socket API under xia-core's names: Xsocket, Xbind, Xconnect, Xsend, ... for blocking programs.

Names and meaning are those of xia-core's Python binding (api/xsocket/python/c_xsocket.i): sockets are
small integers, addresses are DAG strings, errors are OSErrors with an errno. Where xia-core left a
gap it is closed: a SID that is in use gives EADDRINUSE, an unreachable peer EHOSTUNREACH. The node is
found by the environment variable XIA_CONTROL. Object-oriented programs use `XSocket`.
"""

from __future__ import annotations

import errno
import itertools
import threading

from xiatb.errors import XiatbError
from xiatb.node import keystore
from xiatb.node.blocking_socket import (
    MSG_PEEK,
    XSOCK_DGRAM,
    XSOCK_RAW,
    XSOCK_STREAM,
    XSocket,
    register_name,
    request,
)
from xiatb.node.socket_errors import from_xiatb, socket_error
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.xid import XID, XidType, address_of

__all__ = [
    "AF_XIA", "MSG_PEEK", "SO_ACCEPTCONN", "SO_ERROR", "SO_TYPE", "XOPT_BLOCK", "XSOCK_DGRAM",
    "XSOCK_RAW", "XSOCK_STREAM", "XSocket", "Xaccept", "Xbind", "Xclose", "Xconnect", "XgetDAGbyName",
    "XgetNamebyDAG", "Xgetaddrinfo", "Xgetpeername", "Xgetsockname", "Xgetsockopt", "Xlisten",
    "XmakeNewSID", "XreadLocalHostAddr", "Xrecv", "Xrecvfrom", "XregisterName", "XremoveSID", "Xsend",
    "Xsendto", "Xsetsockopt", "Xsocket",
]  # fmt: skip

AF_XIA = 40
SO_TYPE, SO_ERROR, SO_ACCEPTCONN = 3, 4, 30
XOPT_BLOCK = 0x7003

_sockets: dict[int, XSocket] = {}
_numbers = itertools.count(3)
_lock = threading.Lock()


def _add(socket: XSocket) -> int:
    with _lock:
        number = next(_numbers)
        _sockets[number] = socket
    return number


def _get(sockfd: int) -> XSocket:
    socket = _sockets.get(sockfd)
    if socket is None:
        raise socket_error(errno.EBADF, f"{sockfd} is no socket")
    return socket


def Xsocket(kind: int, protocol: int = 0) -> int:
    """Makes a socket of type XSOCK_STREAM or XSOCK_DGRAM; returns its number. EPROTONOSUPPORT for others."""
    return _add(XSocket(kind))


def Xbind(sockfd: int, dag: str) -> int:
    """Binds the final intent of `dag`, a SID made by XmakeNewSID; 0. EINVAL, EADDRINUSE, EADDRNOTAVAIL."""
    _get(sockfd).bind(dag)
    return 0


def Xlisten(sockfd: int, backlog: int) -> int:
    """Takes connections; 0."""
    _get(sockfd).listen(backlog)
    return 0


def Xaccept(sockfd: int) -> tuple[int, str]:
    """Waits for a connection: (new socket, the peer's DAG)."""
    socket, peer = _get(sockfd).accept()
    return _add(socket), peer


def Xconnect(sockfd: int, dag: str) -> int:
    """Connects to a DAG or name; 0. ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT, EISCONN."""
    _get(sockfd).connect(dag)
    return 0


def Xsend(sockfd: int, data: bytes, flags: int = 0) -> int:
    """Sends `data`; returns how many bytes. ENOTCONN, EPIPE, ECONNRESET, EMSGSIZE."""
    return _get(sockfd).send(data, flags)


def Xrecv(sockfd: int, size: int, flags: int = 0) -> bytes:
    """Receives up to `size` bytes; b"" when the peer has closed. flags: MSG_PEEK."""
    return _get(sockfd).recv(size, flags)


def Xsendto(sockfd: int, data: bytes, flags: int, dag: str) -> int:
    """Sends one datagram to a DAG or name; returns its length."""
    return _get(sockfd).sendto(data, flags, dag)


def Xrecvfrom(sockfd: int, size: int, flags: int = 0) -> tuple[bytes, str]:
    """Receives one datagram, cut to `size`: (data, the sender's DAG)."""
    return _get(sockfd).recvfrom(size, flags)


def Xclose(sockfd: int) -> int:
    """Closes a socket; 0. EBADF."""
    _get(sockfd).close()
    del _sockets[sockfd]
    return 0


def Xgetsockname(sockfd: int) -> str:
    """The socket's own DAG at present."""
    return _get(sockfd).getsockname()


def Xgetpeername(sockfd: int) -> str:
    """The peer's DAG at present."""
    return _get(sockfd).getpeername()


def Xsetsockopt(sockfd: int, option: int, value: int) -> int:
    """Sets XOPT_BLOCK (0: calls fail with EAGAIN instead of waiting); 0. ENOPROTOOPT for others."""
    if option != XOPT_BLOCK:
        raise socket_error(errno.ENOPROTOOPT, f"option {option:#x} cannot be set")
    _get(sockfd).setblocking(bool(value))
    return 0


def Xgetsockopt(sockfd: int, option: int) -> int:
    """Reads SO_TYPE, SO_ERROR (always 0: errors come with the call), SO_ACCEPTCONN or XOPT_BLOCK."""
    socket = _get(sockfd)
    values = {
        SO_TYPE: socket.type,
        SO_ERROR: 0,
        SO_ACCEPTCONN: int(socket.listening),
        XOPT_BLOCK: int(socket.gettimeout() != 0),
    }
    if option not in values:
        raise socket_error(errno.ENOPROTOOPT, f"option {option:#x} cannot be read")
    return values[option]


def XmakeNewSID() -> str:
    """Makes a service identity: a key pair in the key store; returns its `SID:...`."""
    try:
        return str(keystore.make_sid())
    except XiatbError as error:
        raise from_xiatb(error) from error


def XremoveSID(sid: str) -> int:
    """Forgets the key of a SID; 0. ENOENT when there is none."""
    try:
        removed = keystore.remove_sid(XID.parse(sid))
    except XiatbError as error:
        raise from_xiatb(error) from error
    if not removed:
        raise socket_error(errno.ENOENT, f"there is no key of {sid}")
    return 0


def XregisterName(name: str, dag: str) -> int:
    """Gives a name to the DAG of a socket that this process has bound; 0. EACCES otherwise."""
    try:
        register_name(name, dag)
    except XiatbError as error:
        raise from_xiatb(error) from error
    return 0


def XgetDAGbyName(name: str) -> str:
    """The DAG of a name. ENOENT."""
    return str(request("resolve", name=name)["dag"])


def XgetNamebyDAG(dag: str) -> str:
    """The name of a DAG's final intent, as the lab's name server knows it. ENOENT, EOPNOTSUPP."""
    return str(request("name_of", dag=dag)["name"])


def Xgetaddrinfo(name: str | None, sid: str | None = None) -> str:
    """The DAG of a service: `sid` at the host called `name`, or at this host when that is None."""
    host = DAG.parse(XgetDAGbyName(name)) if name is not None else DAG.parse(_here()["dag"])
    if sid is None:
        return str(host)
    if host.intent_ad is None or host.intent.type != XidType.HID:
        raise socket_error(errno.EADDRNOTAVAIL, f"{host} is not the address of a host")
    try:
        return str(served(host, XID.parse(sid)))
    except XiatbError as error:
        raise from_xiatb(error) from error


def XreadLocalHostAddr(sockfd: int) -> tuple[str, str, str]:
    """This host's (AD, HID, 4ID) as text; the 4ID is its gateway's, IP:0.0.0.0 when that has none."""
    _get(sockfd)
    here = _here()
    found = [address_of(xid.key) for xid in DAG.parse(here["dag"]).nodes]
    address = next((one for one in found if one is not None), bytes(4))
    return here["ad"], here["hid"], "IP:" + ".".join(map(str, address))


def _here() -> dict[str, str]:
    located = request("locator")
    if located["dag"] is None:
        raise socket_error(errno.ENETUNREACH, "this host has joined no network")
    return located
