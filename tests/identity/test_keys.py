"""Key pairs, key files, XIDs from keys, signatures."""

import json
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.golden import load
from xiatb.errors import IdentityError
from xiatb.identity import keys
from xiatb.identity.keys import KeyPair
from xiatb.wire.xid import XidType

GOLDEN = load("security.json")
KEY = KeyPair.from_seed(bytes(range(32)))


def spki(pem: str) -> bytes:
    return load_pem_public_key(pem.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("name", GOLDEN["keys"])
def test_golden_rule_from_key_to_id(name):
    assert keys.id_of_spki(spki(GOLDEN["keys"][name]["pem"])).hex() == name


def test_golden_rule_on_the_key_of_a_migrate():
    entry = GOLDEN["xstream_migrate"]
    assert keys.id_of_spki(spki(entry["pubkey_pem"])).hex() == entry["xid_from_key"]


def test_spki_is_that_of_the_library():
    public = ed25519.Ed25519PublicKey.from_public_bytes(KEY.public)
    assert keys.spki_of(KEY.public) == public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert KEY.xid(XidType.HID).id == keys.id_of_spki(keys.spki_of(KEY.public))


def test_rfc_8032_first_vector():
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    pair = KeyPair.from_seed(seed)
    assert pair.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert pair.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


@given(st.binary(max_size=200))
def test_sign_and_verify(data):
    signature = KEY.sign(data)
    assert len(signature) == 64
    assert keys.verify(KEY.public, signature, data)
    assert not keys.verify(KEY.public, signature, data + b"x")
    assert not keys.verify(KeyPair.from_seed(bytes(32)).public, signature, data)


@given(st.binary(max_size=40), st.binary(max_size=70), st.binary(max_size=10))
def test_verify_of_garbage_says_no(public, signature, data):
    assert keys.verify(public, signature, data) is False


def test_check_binds_xid_key_and_signature():
    xid = KEY.xid(XidType.SID)
    signature = KEY.sign(b"xiatb-test\0body")
    keys.check(xid, KEY.public, signature, b"xiatb-test\0body")
    with pytest.raises(IdentityError, match="does not hold"):
        keys.check(xid, KEY.public, signature, b"xiatb-other\0body")
    other = KeyPair.generate()
    with pytest.raises(IdentityError, match="does not belong"):
        keys.check(xid, other.public, other.sign(b"x"), b"x")
    with pytest.raises(IdentityError, match="32 bytes"):
        keys.check(xid, b"short", signature, b"x")
    assert KEY.xid(XidType.HID) != xid, "the type is part of the identity"


def test_generated_keys_differ():
    assert KeyPair.generate().public != KeyPair.generate().public


def test_seed_has_32_bytes():
    with pytest.raises(IdentityError):
        KeyPair.from_seed(b"short")


def test_save_and_load(tmp_path):
    path = tmp_path / "key.pem"
    old = os.umask(0)
    try:
        KEY.save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = KeyPair.from_pem_file(path)
    assert again.public == KEY.public
    assert again.sign(b"x") == KEY.sign(b"x")


def test_save_refuses_a_file_that_is_there(tmp_path):
    path = tmp_path / "key.pem"
    KEY.save(path)
    with pytest.raises(IdentityError, match="already"):
        KeyPair.generate().save(path)
    assert KeyPair.from_pem_file(path).public == KEY.public
    other = KeyPair.generate()
    other.save(path, overwrite=True)
    assert KeyPair.from_pem_file(path).public == other.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["key.pem"]


def test_save_does_not_follow_a_link(tmp_path):
    target = tmp_path / "elsewhere"
    (tmp_path / "key.pem").symlink_to(target)
    with pytest.raises(IdentityError):
        KEY.save(tmp_path / "key.pem")
    assert not target.exists()


def test_save_into_nowhere(tmp_path):
    for overwrite in (False, True):
        with pytest.raises(IdentityError, match="cannot write"):
            KEY.save(tmp_path / "no" / "key.pem", overwrite=overwrite)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o700, 0o620])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path, mode):
    path = tmp_path / "key.pem"
    KEY.save(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"{mode:04o} is wider than 0600") as caught:
        KeyPair.from_pem_file(path)
    assert "chmod 600" in caught.value.hint


def private_file(path, content: bytes):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_files_that_hold_no_usable_key(tmp_path):
    encrypted = KEY._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for name, content in (("empty", b""), ("noise", os.urandom(100)), ("enc", encrypted), ("ec", curve)):
        with pytest.raises(IdentityError):
            KeyPair.from_pem_file(private_file(tmp_path / name, content))
    with pytest.raises(IdentityError, match="cannot read"):
        KeyPair.from_pem_file(tmp_path / "missing")
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(IdentityError, match="regular file"):
        KeyPair.from_pem_file(tmp_path / "fifo")
    with pytest.raises(IdentityError):
        KeyPair.from_pem_file(tmp_path)


def test_the_private_part_is_not_shown(tmp_path):
    KEY.save(tmp_path / "key.pem")
    assert "PRIVATE" not in repr(KEY)
    with pytest.raises(TypeError):
        json.dumps(KEY)
