"""Encrypted and authenticated bulk channels: TLS 1.3 of OpenSSL over any `Wire`.

Who is on the other side is decided by a pin, the SHA-256 of the peer's certificate, which both daemons tell
each other in the authenticated control session (`request` and `accept`). Certificates are self-signed, made
anew by every daemon and never written down. OpenSSL does the rest: fresh keys for each channel and direction,
record sequence, and an authenticated end of stream, without which an end is taken for an attack.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import hmac

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from xiatb.errors import IdentityError, WireError
from xiatb.migration.wirestream import OuterWire, Wire

CLIENT_HELLO = 0x16
"""First byte of a TLS stream (a handshake record, RFC 8446 5.1); the first byte of a frame is always 0."""
_READ = 128 * 1024


class TlsIdentity:
    """A daemon's certificate for its channels; `pin` is what its peers must know of it (hex SHA-256)."""

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "xiatb")])
        # The validity says nothing: peers go by the pin, and a lab's clock may be anything.
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime(2000, 1, 1))
            .not_valid_after(datetime.datetime(2100, 1, 1))
            .sign(key, None)
        )
        self.pin = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_3_VERSION)
        self._context.use_privatekey(crypto.PKey.from_cryptography_key(key))
        self._context.use_certificate(crypto.X509.from_cryptography(certificate))
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # The chain means nothing here; `connect` compares the pin, `accept` leaves that to the job.
        self._context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)

    async def connect(self, wire: Wire, pin: str) -> TlsWire:
        """The source's end. Raises IdentityError for a peer with another pin, WireError, OSError."""
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        secured = TlsWire(wire, connection)
        await secured.handshake(b"")
        if not hmac.compare_digest(secured.pin, pin):
            raise IdentityError("the channel leads to somebody else than the control session")
        return secured

    async def accept(self, wire: Wire, first: bytes) -> TlsWire:
        """The destination's end; `first` was read from the wire already. The caller checks `pin`."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        secured = TlsWire(wire, connection)
        await secured.handshake(first)
        return secured


class TlsWire(OuterWire):
    """A `Wire` inside another. `pin` is the SHA-256 of the peer's certificate."""

    def __init__(self, inner: Wire, connection: SSL.Connection) -> None:
        super().__init__(inner)
        self._tls = connection
        self._end: asyncio.Task[None] | None = None
        self.pin = ""

    async def handshake(self, first: bytes) -> None:
        """Run the TLS handshake; raises WireError, OSError."""
        if first:
            self._tls.bio_write(first)
        while True:
            done = True
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                done = False
            except SSL.Error as error:
                await self._flush()  # the alert
                raise WireError(f"TLS handshake: {error}") from None
            await self._flush()
            if done:
                break
            await self._fill()
        certificate = self._tls.get_peer_certificate()
        if certificate is None:
            raise WireError("TLS handshake: no certificate")
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        self.pin = hashlib.sha256(der).hexdigest()

    async def read(self, limit: int) -> bytes:
        """See Wire; an end that the peer has not authenticated raises ConnectionResetError."""
        while True:
            try:
                return bytes(self._tls.recv(limit))
            except SSL.WantReadError:
                await self._fill()
            except SSL.ZeroReturnError:
                return b""
            except SSL.Error as error:
                raise WireError(f"TLS record refused: {error}") from None

    async def write(self, data: bytes) -> None:
        """See Wire."""
        try:
            self._tls.sendall(data)
        except SSL.Error as error:
            raise WireError(f"TLS: {error}") from None
        await self._flush()

    def write_eof(self) -> None:
        """See Wire."""
        with contextlib.suppress(SSL.Error):
            self._tls.shutdown()
        self._end = asyncio.ensure_future(self._finish())

    async def close(self) -> None:
        """See Wire."""
        if self._end is None:
            self.write_eof()
        if self._end is not None:
            await self._end
        await self._inner.close()

    async def _finish(self) -> None:
        with contextlib.suppress(OSError, WireError):
            await self._flush()
        self._inner.write_eof()

    async def _fill(self) -> None:
        data = await self._inner.read(_READ)
        if not data:
            raise ConnectionResetError("the channel ended without its TLS end")
        self._tls.bio_write(data)

    async def _flush(self) -> None:
        """Everything that OpenSSL wants to send, as one piece; concurrent callers keep the order, because the
        inner write takes its bytes before it waits."""
        pieces = []
        with contextlib.suppress(SSL.WantReadError):
            while True:
                pieces.append(self._tls.bio_read(_READ))
        if pieces:
            await self._inner.write(b"".join(pieces))
