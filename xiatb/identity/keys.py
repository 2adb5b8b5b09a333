"""Ed25519 key pairs and the XIDs that are made of them.

The XID of a key is xia-core's rule (api/xsocket/Xkeys.c:73-93): SHA-1 over the base64 text of the
SubjectPublicKeyInfo, that is the PEM body without its newlines; the key is Ed25519 (RFC 8410)
where xia-core has RSA-1024. SHA-1 is part of the wire format here. Private keys are PKCS#8 PEM
files that only their owner can read. Whoever signs separates purposes:
`sign(b"xiatb-<purpose>\\0" + body)`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from xiatb.errors import IdentityError
from xiatb.wire.xid import XID

PUBLIC_LEN = 32
SIGNATURE_LEN = 64

# RFC 8410: SEQUENCE { SEQUENCE { OID 1.3.101.112 } BIT STRING (32 bytes follow) }
_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
_MAX_KEY_FILE = 16 * 1024


def spki_of(public: bytes) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a raw 32-byte Ed25519 public key."""
    if len(public) != PUBLIC_LEN:
        raise IdentityError(f"an Ed25519 public key has 32 bytes, not {len(public)}")
    return _SPKI_PREFIX + bytes(public)


def id_of_spki(spki: bytes) -> bytes:
    """Return the 20-byte XID id of any public key given as DER SubjectPublicKeyInfo."""
    return hashlib.sha1(base64.b64encode(spki), usedforsecurity=False).digest()


def xid_of(public: bytes, type: int) -> XID:
    """Return the XID of the given type that belongs to a raw 32-byte Ed25519 public key."""
    return XID(type, id_of_spki(spki_of(public)))


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Say whether `signature` (64 bytes) is that of `data` by the raw public key; never raises."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes(public)).verify(bytes(signature), bytes(data))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def check(xid: XID, public: bytes, signature: bytes, data: bytes) -> None:
    """Check that `public` is the key behind `xid` and signed `data`; IdentityError if not."""
    if xid_of(public, xid.type) != xid:
        raise IdentityError(f"the key does not belong to {xid}")
    if not verify(public, signature, data):
        raise IdentityError(f"the signature of {xid} does not hold")


class KeyPair:
    """A private key and what follows from it. The private part never leaves except by `save`."""

    __slots__ = ("_private", "public")
    public: bytes

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def generate(cls) -> KeyPair:
        """Return a fresh key pair from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> KeyPair:
        """Return the key pair of a 32-byte seed, for labs and tests that must come out the same."""
        if len(seed) != 32:
            raise IdentityError(f"an Ed25519 seed has 32 bytes, not {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(bytes(seed)))

    @classmethod
    def from_pem_file(cls, path: str | os.PathLike[str]) -> KeyPair:
        """Return the key pair of a PKCS#8 PEM file.

        Raises IdentityError when the file cannot be read, is no regular file, can be accessed by
        anyone but its owner, or does not hold an unencrypted Ed25519 key.
        """
        pem = _read_private(path)
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"{os.fspath(path)}: no unencrypted PEM private key ({error})") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"{os.fspath(path)}: not an Ed25519 key")
        return cls(key)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the key to a PKCS#8 PEM file of mode 0600.

        A file that is there is refused, or with `overwrite` replaced in one step. IdentityError on
        any failure.
        """
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            if overwrite:
                _replace(Path(path), pem)
            else:
                _write_new(Path(path), pem)
        except FileExistsError:
            raise IdentityError(f"{os.fspath(path)}: there is a key file already") from None
        except OSError as error:
            raise IdentityError(f"{os.fspath(path)}: cannot write the key: {error.strerror}") from error

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of `data`, which begins with its purpose."""
        return self._private.sign(bytes(data))

    def xid(self, type: int) -> XID:
        """Return the XID of the given type that belongs to this key."""
        return xid_of(self.public, type)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting: a FIFO in place of a key file must not hang us."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _read_private(path: str | os.PathLike[str]) -> bytes:
    """Return a key file's bytes; IdentityError unless it is a regular file private to its owner."""
    name = os.fspath(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise IdentityError(f"{name}: not a regular file")
            if stat.S_IMODE(mode) & ~0o600:
                raise IdentityError(
                    f"{name}: mode {stat.S_IMODE(mode):04o} is wider than 0600", hint=f"chmod 600 {name}"
                )
            return file.read(_MAX_KEY_FILE)
    except OSError as error:
        raise IdentityError(f"{name}: cannot read the key: {error.strerror}") from error


def _write_new(path: Path, pem: bytes) -> None:
    """Write a file that must not be there yet, never readable by others, not even for a moment."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(pem)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _replace(path: Path, pem: bytes) -> None:
    """Write beside the file and rename, so that a reader sees the old key or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    _write_new(beside, pem)
    try:
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
