"""The algorithms of PROTOCOL.md §2.1 that Python's libraries lack, and short names for the rest."""

import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


class Refused(Exception):
    """What was read is not right. kind says how, as a word."""

    def __init__(self, kind, why=""):
        super().__init__(f"{kind}: {why}")
        self.kind = kind


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf_extract(salt, ikm):
    """RFC 5869 §2.2."""
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def hkdf_expand(prk, info, size):
    """RFC 5869 §2.3."""
    out, block, i = b"", b"", 0
    while len(out) < size:
        i += 1
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:size]


def _rounds(state):
    """The twenty rounds of RFC 8439 §2.3 over sixteen words, without the final addition."""
    x = list(state)

    def quarter(a, b, c, d):
        for i, j, k, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[i] = (x[i] + x[j]) & 0xFFFFFFFF
            v = x[k] ^ x[i]
            x[k] = (v << n | v >> (32 - n)) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return x


_SIGMA = struct.unpack("<4I", b"expand 32-byte k")


def chacha20_block(key, nonce, counter):
    """RFC 8439 §2.3: 64 bytes of a 32-byte key, a 12-byte nonce and a counter."""
    state = _SIGMA + struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(_rounds(state), state)))


def hchacha20(key, nonce):
    """draft-irtf-cfrg-xchacha-03 §2.2: 32 bytes of a 32-byte key and a 16-byte nonce."""
    x = _rounds(_SIGMA + struct.unpack("<8I", key) + struct.unpack("<4I", nonce))
    return struct.pack("<8I", *x[:4], *x[12:])


def xchacha_seal(key, nonce, plain, aad):
    """XChaCha20-Poly1305 with a 24-byte nonce: the ciphertext and its tag of 16 bytes."""
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], plain, aad)


def xchacha_open(key, nonce, sealed, aad):
    try:
        return ChaCha20Poly1305(hchacha20(key, nonce[:16])).decrypt(bytes(4) + nonce[16:], sealed, aad)
    except InvalidTag:
        raise Refused("unauthentic", "the tag does not verify") from None


def ed25519_public(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def ed25519_sign(seed, message):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def ed25519_verify(public, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Refused("signature") from None
