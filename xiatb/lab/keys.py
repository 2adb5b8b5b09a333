"""Keys of a lab, derived from its seed.

These are laboratory keys: who knows the seed (it is in the topology file and the plan) has them all. That is
wanted, runs come out the same; never use them outside a lab.
"""

from __future__ import annotations

import random
import uuid as uuid_module

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from xiatb.identity.keys import KeyPair
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.node import membership
from xiatb.wire.xid import XID, XidType

_SALT = b"xiatb lab keys, version 1"


class KeyRing:
    """Everything random in a lab, as a function of (seed, lab name, what it is for)."""

    def __init__(self, seed: int, lab: str) -> None:
        self._seed = seed.to_bytes(8, "big")
        self._lab = lab

    def derive(self, *labels: str, length: int = 32) -> bytes:
        """HKDF-SHA256 (RFC 5869) of the seed with lab name and labels as context; `length` bytes."""
        info = "\0".join((self._lab, *labels)).encode()
        return HKDF(algorithm=SHA256(), length=length, salt=_SALT, info=info).derive(self._seed)

    def key(self, owner: str) -> KeyPair:
        """The key pair of a node, guest, service or daemon (names as in `LabPaths.key`) or of "ad-NAME"."""
        return KeyPair.from_seed(self.derive("key", owner))

    def xid(self, owner: str, kind: XidType) -> XID:
        """The XID of that key."""
        return self.key(owner).xid(kind)

    def mac(self, *labels: str, prefix: bytes = b"\x02") -> str:
        """A locally administered unicast MAC that starts with `prefix`."""
        raw = prefix + self.derive("mac", *labels, length=6 - len(prefix))
        return ":".join(f"{byte:02x}" for byte in raw)

    def uuid(self, *labels: str) -> str:
        """A version 4 UUID."""
        return str(uuid_module.UUID(bytes=self.derive("uuid", *labels, length=16), version=4))

    def number(self, *labels: str) -> int:
        """A seed for some random.Random, 0 to 2^53-1 so that JSON keeps it."""
        return int.from_bytes(self.derive("number", *labels, length=8), "big") >> 11

    def random(self, *labels: str) -> random.Random:
        """A seeded random source."""
        return random.Random(self.number(*labels))

    def member(self, ad: str, hid: XID) -> bytes:
        """The AD's certificate that `hid` is one of its routers."""
        return membership.issue(self.key(f"ad-{ad}"), hid)


def key_owners(plan: Plan) -> list[str]:
    """Names of all key files of a lab, in the order in which they are written."""
    owners = [node.name for node in plan.xia_nodes]
    owners += [f"migrated-{node.name}" for node in plan.kind("hypervisor")]
    for guest in plan.guests:
        owners.append(f"guest-{guest.name}")
        owners += [f"guest-{guest.name}-{service.name}" for service in guest.services]
    return owners


def write_keys(plan: Plan, paths: LabPaths) -> None:
    """Write every private key that a process of the lab needs, 0600 in a 0700 directory. The ADs' keys are
    needed only for certificates, which the plan holds: they are not written."""
    paths.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    ring = KeyRing(plan.seed, plan.lab)
    for owner in key_owners(plan):
        ring.key(owner).save(paths.key(owner), overwrite=True)
