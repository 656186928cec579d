"""HPKE (RFC 9180) in base mode, single shot, of the one suite of PROTOCOL.md §2.1: X-Wing
(draft-connolly-cfrg-xwing-kem), HKDF-SHA256, ChaCha20-Poly1305."""

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .primitives import Refused, hkdf_expand, hkdf_extract

PUBLIC_SIZE = 1216
ENC_SIZE = 1120
_EK, _CT = 1184, 1088  # ML-KEM-768's part of each

_SUITE = b"HPKE" + bytes.fromhex("647a" "0001" "0003")


def _private(seed):
    """The two private keys that a 32-byte decapsulation key expands to."""
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def public(seed):
    """The 1216-byte public key: ML-KEM-768's, then X25519's."""
    m, x = _private(seed)
    return m.public_key().public_bytes_raw() + x.public_key().public_bytes_raw()


def _combine(ss_m, ss_x, ct_x, pk_x):
    return hashlib.sha3_256(ss_m + ss_x + ct_x + pk_x + bytes.fromhex("5c2e2f2f5e5c")).digest()


def _encapsulate(pub):
    if len(pub) != PUBLIC_SIZE:
        raise Refused("malformed", "public key")
    try:
        ss_m, ct_m = MLKEM768PublicKey.from_public_bytes(pub[:_EK]).encapsulate()
        ephemeral = X25519PrivateKey.from_private_bytes(os.urandom(32))
        ss_x = ephemeral.exchange(X25519PublicKey.from_public_bytes(pub[_EK:]))
    except ValueError:
        raise Refused("malformed", "public key") from None
    ct_x = ephemeral.public_key().public_bytes_raw()
    return _combine(ss_m, ss_x, ct_x, pub[_EK:]), ct_m + ct_x


def check(pub):
    """Refuses a public key that cannot be wrapped to."""
    _encapsulate(pub)


def _decapsulate(seed, enc):
    m, x = _private(seed)
    try:
        ss_x = x.exchange(X25519PublicKey.from_public_bytes(enc[_CT:]))
    except ValueError:
        raise Refused("unauthentic", "encapsulated key") from None
    return _combine(m.decapsulate(enc[:_CT]), ss_x, enc[_CT:], x.public_key().public_bytes_raw())


def _schedule(shared, info):
    """RFC 9180 §5.1: the key and the base nonce, which the first message uses as it is."""

    def extract(salt, label, ikm):
        return hkdf_extract(salt, b"HPKE-v1" + _SUITE + label + ikm)

    def expand(prk, label, context, size):
        return hkdf_expand(prk, size.to_bytes(2, "big") + b"HPKE-v1" + _SUITE + label + context, size)

    context = b"\0" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    return ChaCha20Poly1305(expand(secret, b"key", context, 32)), expand(secret, b"base_nonce", context, 12)


def seal(pub, info, plain):
    """Encapsulated key and ciphertext, with an empty AAD."""
    shared, enc = _encapsulate(pub)
    aead, nonce = _schedule(shared, info)
    return enc + aead.encrypt(nonce, plain, b"")


def open(seed, info, wrap):
    aead, nonce = _schedule(_decapsulate(seed, wrap[:ENC_SIZE]), info)
    try:
        return aead.decrypt(nonce, wrap[ENC_SIZE:], b"")
    except InvalidTag:
        raise Refused("unauthentic", "wrap") from None
