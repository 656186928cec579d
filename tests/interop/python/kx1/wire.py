"""Control messages: Credential, PrekeyBundle and EpochGrant of PROTOCOL.md §2.6, and the CSR of
§2.12. A message is a dict; bytes stay bytes, and a pattern is a pair (kind, name)."""

from . import hpke
from .keys import grants_partition
from .primitives import Refused, ed25519_sign, ed25519_verify, sha256

CREDENTIAL, BUNDLE, GRANT = 1, 3, 4
ROLES = 1 | 2 | 4 | 8 | 16 | 32
EXACT, PREFIX = 0, 1
WRAP_SIZE = hpke.ENC_SIZE + 32 + 16


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise Refused("malformed", "cut short")
        self.at += n
        return self.data[self.at - n : self.at]

    def uint(self, n):
        return int.from_bytes(self.take(n), "big")

    def string(self):
        return self.take(self.uint(2))

    def end(self):
        if self.at != len(self.data):
            raise Refused("malformed", "trailing bytes")

    def pre(self, kind):
        if self.take(3) != bytes([1, kind, 1]):
            raise Refused("malformed", "version, type or suite")
        return self.take(16)

    def patterns(self):
        out = []
        for _ in range(self.uint(2)):
            kind, name = self.uint(1), self.string()
            want(kind in (EXACT, PREFIX) and len(name) <= 249 and (name or kind == PREFIX), "pattern")
            out.append((kind, name))
        return out


def want(holds, what):
    if not holds:
        raise Refused("malformed", what)


def uint(v, n):
    return v.to_bytes(n, "big")


def string(b):
    return uint(len(b), 2) + b


def patterns(ps):
    return uint(len(ps), 2) + b"".join(uint(kind, 1) + string(name) for kind, name in ps)


def pre(kind, realm):
    return bytes([1, kind, 1]) + realm


def covered(kind, realm, body):
    """What a signature covers (§2.1)."""
    return b"KX1 sig v1\0" + bytes([kind]) + realm + uint(len(body), 4) + body


def sign(seed, kind, realm, body):
    return ed25519_sign(seed, covered(kind, realm, body))


def signer(pub, message):
    return pub(message) if callable(pub) else pub


def verify(pub, kind, realm, body, signature):
    ed25519_verify(pub, signature, covered(kind, realm, body))


def make_credential(c, seed):
    body = (
        pre(CREDENTIAL, c["realm"]) + c["node"] + c["serial"] + c["subject_pub"] + uint(c["lineage"], 4)
        + uint(c["not_before"], 8) + uint(c["not_after"], 8) + uint(c["data_not_before"], 8)
        + uint(c["offline_allow_s"], 4) + uint(c["roles"], 2) + patterns(c["topics"]) + patterns(c["groups"])
        + c["issuer_pub"]
    )
    return body + sign(seed, CREDENTIAL, c["realm"], body)


def read_credential(data):
    """The message, its signature verified with the issuer_pub that it names."""
    want(len(data) <= 4096, "size")
    r = Reader(data)
    c = {"realm": r.pre(CREDENTIAL), "node": r.take(16), "serial": r.take(16), "subject_pub": r.take(32)}
    c["lineage"] = r.uint(4)
    c["not_before"], c["not_after"], c["data_not_before"] = r.uint(8), r.uint(8), r.uint(8)
    c["offline_allow_s"], c["roles"] = r.uint(4), r.uint(2)
    c["topics"], c["groups"] = r.patterns(), r.patterns()
    c["issuer_pub"] = r.take(32)
    body = data[: r.at]
    signature = r.take(64)
    r.end()
    want(c["not_before"] <= c["not_after"], "validity")
    want(c["roles"] & ~ROLES == 0, "roles")
    verify(c["issuer_pub"], CREDENTIAL, c["realm"], body, signature)
    return c


def credential_key(c):
    return b"\x01" + c["node"] + c["serial"]


def make_bundle(b, seed):
    body = (
        pre(BUNDLE, b["realm"]) + b["node"] + b["cred_serial"] + uint(b["generation"], 8) + uint(b["created"], 8)
        + uint(b["not_after"], 8) + patterns(b["interest"]) + b["kem_pub"]
    )
    return body + sign(seed, BUNDLE, b["realm"], body)


def read_bundle(data, pub):
    """pub, here and below, is the signer's public key, or a function of the message that finds it."""
    r = Reader(data)
    b = {"realm": r.pre(BUNDLE), "node": r.take(16), "cred_serial": r.take(16)}
    b["generation"], b["created"], b["not_after"] = r.uint(8), r.uint(8), r.uint(8)
    b["interest"] = r.patterns()
    b["kem_pub"] = r.take(hpke.PUBLIC_SIZE)
    body = data[: r.at]
    signature = r.take(64)
    r.end()
    want(b["created"] <= b["not_after"], "validity")
    verify(signer(pub, b), BUNDLE, b["realm"], body, signature)
    return b


def bundle_key(b):
    return b"\x03" + b["node"]


def make_header(h):
    topics = uint(len(h["topics"]), 2) + b"".join(string(t["topic"]) + t["commit"] for t in h["topics"])
    return (
        pre(GRANT, h["realm"]) + h["node"] + h["cred_serial"] + h["instance"] + uint(h["epoch"], 4)
        + uint(h["start"], 8) + uint(h["use_by"], 8) + uint(h["flags"], 2) + uint(h["authority_seq"], 8)
        + h["roster_digest"] + h["prev"] + topics
    )


def grant_info(header, recipient, kem_pub):
    return b"KX1 grant v1\0" + sha256(header) + recipient + sha256(kem_pub)


def make_parts(header, realm, recipients, es, seed):
    """The sixteen values of a grant. recipients are dicts of node, prekey_id, kem_pub."""
    out = []
    for partition in range(16):
        mine = [r for r in sorted(recipients, key=lambda r: r["node"]) if grants_partition(r["node"]) == partition]
        wraps = uint(len(mine), 2) + b"".join(
            r["node"] + r["prekey_id"] + hpke.seal(r["kem_pub"], grant_info(header, r["node"], r["kem_pub"]), es)
            for r in mine
        )
        body = header + uint(partition, 1) + sha256(wraps)
        out.append(body + sign(seed, GRANT, realm, body) + wraps)
    return out


def roster_digest(recipients):
    return sha256(*(r["node"] + r["prekey_id"] for r in sorted(recipients, key=lambda r: r["node"])))


def read_header(r, pub):
    """HEADER ‖ PART ‖ signature from a reader: HEADER's fields, its bytes as header, and PART's."""
    began = r.at
    h = {"realm": r.pre(GRANT), "node": r.take(16), "cred_serial": r.take(16), "instance": r.take(16)}
    h["epoch"], h["start"], h["use_by"] = r.uint(4), r.uint(8), r.uint(8)
    h["flags"], h["authority_seq"] = r.uint(2), r.uint(8)
    h["roster_digest"], h["prev"] = r.take(32), r.take(32)
    h["topics"] = [{"topic": r.string(), "commit": r.take(32)} for _ in range(r.uint(2))]
    h["header"] = r.data[began : r.at]
    h["partition"], h["wraps_hash"] = r.uint(1), r.take(32)
    body = r.data[began : r.at]
    signature = r.take(64)
    want(h["use_by"] > h["start"] and h["flags"] & ~1 == 0 and h["partition"] < 16, "header")
    want(1 <= len(h["topics"]) <= 512 and ascending([t["topic"] for t in h["topics"]]), "topics")
    want(all(1 <= len(t["topic"]) <= 249 for t in h["topics"]), "topic name")
    return h, lambda: verify(signer(pub, h), GRANT, h["realm"], body, signature)


def read_part(data, pub):
    """A part: HEADER's fields, its bytes as header, the partition and the wraps."""
    want(len(data) <= 512 << 10, "size")
    r = Reader(data)
    h, verify_header = read_header(r, pub)
    wraps_at = r.at
    h["wraps"] = [{"node": r.take(16), "prekey_id": r.take(8), "hpke": r.take(WRAP_SIZE)} for _ in range(r.uint(2))]
    r.end()
    want(ascending([w["node"] for w in h["wraps"]]), "wraps")
    want(all(grants_partition(w["node"]) == h["partition"] for w in h["wraps"]), "wrap of another partition")
    want(sha256(data[wraps_at:]) == h.pop("wraps_hash"), "wraps hash")
    verify_header()
    return h


def ascending(names):
    return all(a < b for a, b in zip(names, names[1:]))


def grant_key(h):
    return b"\x04" + h["instance"] + uint(h["epoch"], 4)


def make_csr(c, seed, handshake_hash=bytes(32)):
    """A CSR. One by file has a handshake hash of zeros."""
    body = (
        b"\x01\x01" + c["id_pub"] + uint(c["offline_allow_s"], 4) + uint(c["roles"], 2)
        + patterns(c["topics"]) + patterns(c["groups"])
    )
    return body + ed25519_sign(seed, b"KX1 csr v1\0" + handshake_hash + body)


def read_csr(data, handshake_hash=bytes(32)):
    want(len(data) <= 4096, "size")
    r = Reader(data)
    want(r.take(2) == b"\x01\x01", "version or suite")
    c = {"id_pub": r.take(32), "offline_allow_s": r.uint(4), "roles": r.uint(2)}
    c["topics"], c["groups"] = r.patterns(), r.patterns()
    body = data[: r.at]
    signature = r.take(64)
    r.end()
    want(c["roles"] & ~ROLES == 0, "roles")
    ed25519_verify(c["id_pub"], signature, b"KX1 csr v1\0" + handshake_hash + body)
    return c
