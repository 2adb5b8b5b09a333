"""Mutual authentication of two migration daemons and the sealed message session that follows (sans-IO).

Three clear frames: hello (initiator), hello_reply (responder, signed), hello_proof (initiator's signature).
Both signatures are Ed25519 by the key behind the daemon's SID, over the SHA-256 of all that was said
before: both SIDs, public keys, fresh nonces and X25519 shares. The shared secret gives, by HKDF-SHA256
salted with the transcript, one HMAC key per direction and one for channel proofs. This is the signed
Diffie-Hellman pattern (SIGMA with explicit identities on both sides); primitives are those of the
`cryptography` package.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Collection
from typing import Any

from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from xiatb.errors import IdentityError, WireError
from xiatb.identity.keys import KeyPair, check
from xiatb.migration import fields as f
from xiatb.migration import frames
from xiatb.migration.messages import Message, decode, encode
from xiatb.wire.xid import XID, XidType

_REPLY_LABEL = b"xiatb-migrate-reply\0"
_PROOF_LABEL = b"xiatb-migrate-proof\0"
_HELLO = {"sid": f.xid, "public": f.hexadecimal(32), "nonce": f.hexadecimal(32), "share": f.hexadecimal(32)}
_SIGNATURE = f.hexadecimal(64)


class Session:
    """One side of the control session: bytes in with `feed`, messages out; messages in with `send`, bytes
    out.

    `peers` are the SIDs that may be on the other end; the initiator gives exactly the one it means to reach.
    After any error the session is dead: the caller closes the stream.
    """

    def __init__(
        self,
        key: KeyPair,
        peers: Collection[XID],
        *,
        initiator: bool,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._key = key
        self._sid = key.xid(XidType.SID)
        self._peers = frozenset(peers)
        self._initiator = initiator
        self._share = X25519PrivateKey.generate()
        self._nonce = entropy(32)
        self._reader = frames.FrameReader()
        self._transcript = hashlib.sha256(b"xiatb-migrate-1\0")
        self._output = bytearray()
        self._hello: dict[str, Any] = {}
        self._step = "hello"
        self._sealer: frames.Sealer | None = None
        self._opener: frames.Opener | None = None
        self.peer_sid: XID | None = None
        self.channel_key = b""

    @property
    def established(self) -> bool:
        """True once the peer has proved its SID and sealed messages may flow."""
        return self._step == "open"

    @property
    def waiting(self) -> int:
        """Bytes that `take_output` would give."""
        return len(self._output)

    def start(self) -> None:
        """The initiator's first act: say hello."""
        self._say(self._own_hello("hello"))
        self._step = "reply"

    def take_output(self) -> bytes:
        """The bytes to write to the stream now; empties the store."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def send(self, message: Message) -> None:
        """Seal `message` for the peer; raises `WireError` before the session is established."""
        if self._sealer is None or self._step != "open":
            raise WireError("control session is not established")
        self._output += self._sealer.seal(frames.dump(encode(message)))

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes from the stream; gives the messages that they completed.

        Raises `WireError` for anything malformed, forged, replayed or out of order and `IdentityError` for a
        peer that is not who it says or not a configured peer.
        """
        self._reader.feed(data)
        messages: list[Message] = []
        while (frame := self._reader.next()) is not None:
            kind, body = frame
            if self._step == "open":
                if kind != frames.SEALED or self._opener is None:
                    raise WireError("clear frame in an established control session")
                messages.append(decode(frames.load(self._opener.open(body))))
            elif kind == frames.CLEAR:
                self._handshake(body)
            else:
                raise WireError("sealed frame before the handshake")
        return messages

    def _handshake(self, body: bytes) -> None:
        value = frames.load(body)
        expected = {"hello": "hello", "reply": "hello_reply", "proof": "hello_proof"}.get(self._step)
        if value.get("t") != expected or (self._initiator and self._step == "hello"):
            raise WireError(f"handshake expected {expected}, got {str(value.get('t'))[:20]!r}")
        if self._step == "hello":
            self._hello_in(body, value)
            reply = self._own_hello("hello_reply")
            self._say({**reply, "sig": self._sign(_REPLY_LABEL)})
            self._step = "proof"
        elif self._step == "reply":
            signature = self._take_signature(value)
            unsigned = {k: v for k, v in value.items() if k != "sig"}
            self._hello_in(frames.dump(unsigned), value)
            self._verify(_REPLY_LABEL, signature)
            self._say({"t": "hello_proof", "sig": self._sign(_PROOF_LABEL)})
            self._open()
        else:
            self._verify(_PROOF_LABEL, self._take_signature(value))
            self._open()

    def _hello_in(self, body: bytes, value: dict[str, Any]) -> None:
        fields: dict[str, str] = {}
        for name, verify in _HELLO.items():
            if name not in value:
                raise WireError(f"handshake lacks {name}")
            fields[name] = verify(value[name])
        sid = XID.parse(fields["sid"])
        if sid.type != XidType.SID:
            raise WireError("handshake names an XID that is no SID")
        if sid == self._sid or sid not in self._peers:
            raise IdentityError(f"{sid} is not a configured peer")
        self._hello = fields
        self._transcript.update(body)
        self.peer_sid = sid

    def _own_hello(self, kind: str) -> dict[str, Any]:
        share = self._share.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        value = {
            "t": kind, "sid": str(self._sid), "public": self._key.public.hex(),
            "nonce": self._nonce.hex(), "share": share.hex(),
        }  # fmt: skip
        self._transcript.update(frames.dump(value))
        return value

    def _say(self, value: dict[str, Any]) -> None:
        self._output += frames.pack_json(frames.CLEAR, value)

    def _sign(self, label: bytes) -> str:
        return self._key.sign(label + self._transcript.digest()).hex()

    def _take_signature(self, value: dict[str, Any]) -> bytes:
        return bytes.fromhex(_SIGNATURE(value.get("sig")))

    def _verify(self, label: bytes, signature: bytes) -> None:
        assert self.peer_sid is not None  # noqa: S101 - set by _hello_in, which comes first
        public = bytes.fromhex(self._hello["public"])
        check(self.peer_sid, public, signature, label + self._transcript.digest())

    def _open(self) -> None:
        try:
            peer_share = X25519PublicKey.from_public_bytes(bytes.fromhex(self._hello["share"]))
            secret = self._share.exchange(peer_share)
        except (ValueError, InvalidKey, UnsupportedAlgorithm) as error:
            raise WireError(f"bad key share: {error}") from None
        salt = self._transcript.digest()
        material = HKDF(algorithm=SHA256(), length=96, salt=salt, info=b"xiatb-migrate-keys").derive(secret)
        forward, back, self.channel_key = material[:32], material[32:64], material[64:]
        mine, theirs = (forward, back) if self._initiator else (back, forward)
        self._sealer, self._opener = frames.Sealer(mine), frames.Opener(theirs)
        self._step = "open"


def channel_proof(channel_key: bytes, job: str, kind: str, index: int, token: str) -> str:
    """The proof (hex HMAC-SHA256) that who opens a bulk channel holds the control session's key.

    The token alone travels in clear inside the control stream; the proof ties the channel to the session.
    """
    said = b"\0".join((b"xiatb-migrate-channel", job.encode(), kind.encode(), b"%d" % index, token.encode()))
    return hmac.digest(channel_key, said, "sha256").hex()
