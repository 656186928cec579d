"""Noise_NKpsk0_25519_ChaChaPoly_SHA256 (the Noise Protocol Framework, revision 34), with empty
handshake payloads and as PROTOCOL.md §2.12 uses it: two handshake messages, then one message each way."""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .primitives import Refused, hkdf_expand, hkdf_extract

NAME = b"Noise_NKpsk0_25519_ChaChaPoly_SHA256"
HELLO = 32 + 16  # an ephemeral key, and the tag of an empty payload
MAX_MESSAGE = 65535


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _dh(private, pub):
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(pub))
    except ValueError:
        raise Refused("unauthentic", "public key") from None


class _Cipher:
    """A CipherState, §5.1."""

    def __init__(self, key):
        self.aead, self.n = ChaCha20Poly1305(key), 0

    def _nonce(self):
        self.n += 1
        return bytes(4) + (self.n - 1).to_bytes(8, "little")

    def seal(self, plain, ad=b""):
        return self.aead.encrypt(self._nonce(), plain, ad)

    def open(self, sealed, ad=b""):
        if len(sealed) > MAX_MESSAGE:
            raise Refused("malformed", "length of a Noise message")
        try:
            return self.aead.decrypt(self._nonce(), sealed, ad)
        except (InvalidTag, ValueError):
            raise Refused("unauthentic", "Noise message") from None


class Handshake:
    """Either side. Any refusal ends it: what follows one is a handshake anew."""

    def __init__(self, psk, prologue, ephemeral, responder_pub=None, responder=None):
        if len(psk) != 32 or not any(psk):
            raise Refused("malformed", "psk")
        self.psk, self.e, self.s = psk, ephemeral, responder
        self.rs = responder_pub or public(responder)
        self.h = self.ck = hashlib.sha256(NAME).digest()  # the name is longer than 32 bytes
        self._mix_hash(prologue)
        self._mix_hash(self.rs)  # pre-message: <- s

    def _mix_hash(self, data):
        self.h = hashlib.sha256(self.h + data).digest()

    def _hkdf(self, material, count):
        prk = hkdf_extract(self.ck, material)
        out = hkdf_expand(prk, b"", 32 * count)
        return [out[i : i + 32] for i in range(0, 32 * count, 32)]

    def _mix_key(self, material):
        self.ck, key = self._hkdf(material, 2)
        self.cipher = _Cipher(key)

    def _mix_psk(self):
        self.ck, mixed, key = self._hkdf(self.psk, 3)
        self._mix_hash(mixed)
        self.cipher = _Cipher(key)

    def _mix_e(self, pub):
        self._mix_hash(pub)
        self._mix_key(pub)  # in a handshake with a psk

    def _payload(self):
        sealed = self.cipher.seal(b"", self.h)
        self._mix_hash(sealed)
        return sealed

    def _read_payload(self, sealed):
        self.cipher.open(sealed, self.h)
        self._mix_hash(sealed)

    def _split(self):
        self.there, self.back = (_Cipher(k) for k in self._hkdf(b"", 2))

    def write1(self):
        """-> psk, e, es"""
        self._mix_psk()
        pub = public(self.e)
        self._mix_e(pub)
        self._mix_key(_dh(self.e, self.rs))
        return pub + self._payload()

    def read1(self, message):
        _hello(message)
        self._mix_psk()
        self.re = message[:32]
        self._mix_e(self.re)
        self._mix_key(_dh(self.s, self.re))
        self._read_payload(message[32:])

    def write2(self):
        """<- e, ee"""
        pub = public(self.e)
        self._mix_e(pub)
        self._mix_key(_dh(self.e, self.re))
        message = pub + self._payload()
        self._split()
        return message

    def read2(self, message):
        _hello(message)
        re = message[:32]
        self._mix_e(re)
        self._mix_key(_dh(self.e, re))
        self._read_payload(message[32:])
        self._split()


def _hello(message):
    if len(message) != HELLO:
        raise Refused("malformed", "length of a handshake message")
