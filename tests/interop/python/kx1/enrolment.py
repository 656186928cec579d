"""Enrolment by ticket: PROTOCOL.md §2.12, and the record's key of §2.6."""

import base64

from . import keys, noise
from .primitives import Refused, sha256
from .wire import ROLES, Reader, make_csr, patterns, read_credential, read_csr, uint, want

PREFIX = "kx1-PRIVATE-ticket."
ISSUER = 4


def make_ticket(t):
    data = (
        b"\x01\x01" + t["ticket_id"] + t["psk"] + t["static"] + t["root_pub"] + uint(t["not_after"], 8)
        + uint(t["offline_allow_s"], 4) + uint(t["roles"], 2) + patterns(t["topics"]) + patterns(t["groups"])
    )
    return PREFIX + base64.urlsafe_b64encode(data + sha256(data)[:4]).decode().rstrip("=")


def read_ticket(text):
    want(text.startswith(PREFIX), "prefix")
    encoded = text[len(PREFIX) :]
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Refused("malformed", "base64url") from None
    want(base64.urlsafe_b64encode(data).decode().rstrip("=") == encoded, "another text of the same ticket")
    want(len(data) > 4 and sha256(data[:-4])[:4] == data[-4:], "checksum")
    want(len(data) - 4 <= 4096, "size")
    r = Reader(data[:-4])
    want(r.take(2) == b"\x01\x01", "version or suite")
    t = {"ticket_id": r.take(16), "psk": r.take(32), "static": r.take(32), "root_pub": r.take(32)}
    t["not_after"], t["offline_allow_s"], t["roles"] = r.uint(8), r.uint(4), r.uint(2)
    t["topics"], t["groups"] = r.patterns(), r.patterns()
    r.end()
    want(any(t["psk"]), "psk")
    want(t["roles"] and t["roles"] & ~(ROLES ^ ISSUER) == 0 and t["topics"], "roles or topics")
    return t


def record_key(ticket_id, attempt, n):
    return b"\x08" + ticket_id + attempt + uint(n, 1)


def read_record_key(data):
    r = Reader(data)
    want(r.take(1) == b"\x08", "type")
    k = {"ticket_id": r.take(16), "attempt": r.take(8), "n": r.uint(1)}
    r.end()
    want(1 <= k["n"] <= 4, "number of the message")
    return k


def make_chain(root_pub, credentials):
    return root_pub + uint(len(credentials), 1) + b"".join(uint(len(c), 2) + c for c in credentials)


def read_chain(data, root_pub, subject_pub):
    """The Credentials: the node's, and its issuer's unless the root signed it."""
    r = Reader(data)
    root = r.take(32)
    count = r.uint(1)
    want(count in (1, 2), "count")
    chain = [read_credential(r.take(r.uint(2))) for _ in range(count)]
    r.end()
    realm = keys.realm_id(root_pub)
    own, top = chain[0], chain[-1]
    if root != root_pub or any(c["realm"] != realm for c in chain) or own["subject_pub"] != subject_pub or top["issuer_pub"] != root_pub:
        raise Refused("unauthentic", "chain")
    if count == 2 and (own["issuer_pub"] != top["subject_pub"] or not top["roles"] & ISSUER):
        raise Refused("unauthentic", "chain")
    return chain


def _prologue(root_pub, ticket_id):
    return b"KX1 enrol v1\0" + keys.realm_id(root_pub) + ticket_id


class Node:
    """The node's side of one attempt."""

    def __init__(self, ticket, ephemeral):
        self.ticket = read_ticket(ticket)
        t = self.ticket
        self.handshake = noise.Handshake(t["psk"], _prologue(t["root_pub"], t["ticket_id"]), ephemeral, responder_pub=t["static"])

    def write1(self):
        return self.handshake.write1()

    def write3(self, message2, csr, seed):
        self.handshake.read2(message2)
        return self.handshake.there.seal(make_csr(csr, seed, self.handshake.h))

    def read4(self, message, subject_pub):
        return read_chain(self.handshake.back.open(message), self.ticket["root_pub"], subject_pub)


class Issuer:
    """The issuer's side of one ticket."""

    def __init__(self, ticket_id, psk, static, root_pub, ephemeral):
        self.handshake = noise.Handshake(psk, _prologue(root_pub, ticket_id), ephemeral, responder=static)

    def write2(self, message1):
        self.handshake.read1(message1)
        return self.handshake.write2()

    def read3(self, message):
        return read_csr(self.handshake.there.open(message), self.handshake.h)

    def write4(self, root_pub, credentials):
        return self.handshake.back.seal(make_chain(root_pub, credentials))
