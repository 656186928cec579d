"""KeyShare and EpochRequest: PROTOCOL.md §2.6, §2.10."""

from . import hpke, keys
from .primitives import Refused, sha256
from .wire import WRAP_SIZE, Reader, ascending, pre, read_header, sign, signer, string, uint, verify, want

SHARE, REQUEST = 5, 6


def share_info(header, recipient, kem_pub, sharer):
    return b"KX1 share v1\0" + sha256(header) + recipient + sha256(kem_pub) + sharer


def make_share(s, proof, kem_pub, ts, seed):
    """proof is HEADER ‖ PART ‖ signature as some part of the grant begins."""
    header, _ = read_header(Reader(proof), b"")
    wrap = hpke.seal(kem_pub, share_info(header["header"], s["recipient"], kem_pub, s["sharer"]), ts)
    body = (
        pre(SHARE, s["realm"]) + proof + s["sharer"] + s["cred_serial"] + s["recipient"] + keys.prekey_id(kem_pub)
        + string(s["topic"]) + wrap
    )
    key = b"\x05" + keys.kid(_entry({**s, "grant": header})["commit"]) + s["recipient"]
    return {"key": key, "value": body + sign(seed, SHARE, s["realm"], body)}


def proof_of(part):
    """What a share repeats of a part of the grant."""
    r = Reader(part)
    read_header(r, b"")
    return part[: r.at]


def read_share(data, producer_pub, sharer_pub):
    """The message, both signatures verified; HEADER's fields are grant."""
    want(len(data) <= 512 << 10, "size")
    r = Reader(data)
    s = {"realm": r.pre(SHARE)}
    s["grant"], verify_header = read_header(r, producer_pub)
    s["sharer"], s["cred_serial"], s["recipient"], s["prekey_id"] = r.take(16), r.take(16), r.take(16), r.take(8)
    s["topic"] = r.string()
    s["hpke"] = r.take(WRAP_SIZE)
    body = data[: r.at]
    signature = r.take(64)
    r.end()
    want(s["grant"]["realm"] == s["realm"], "a header of another realm")
    want(_entry(s) is not None, "a topic that the grant does not list")
    verify_header()
    verify(signer(sharer_pub, s), SHARE, s["realm"], body, signature)
    return s


def _entry(s):
    return next((t for t in s["grant"]["topics"] if t["topic"] == s["topic"]), None)


def share_kid(s):
    return keys.kid(_entry(s)["commit"])


def share_key(s):
    return b"\x05" + share_kid(s) + s["recipient"]


def open_share(s, seed):
    """The root of what a share's prekey seed opens."""
    pub = hpke.public(seed)
    if keys.prekey_id(pub) != s["prekey_id"]:
        raise Refused("no prekey")
    h = s["grant"]
    ts = hpke.open(seed, share_info(h["header"], s["recipient"], pub, s["sharer"]), s["hpke"])
    ctx = keys.context(h["realm"], h["node"], h["instance"], h["epoch"], s["topic"])
    commit = keys.commitment(ts, ctx)
    if commit != _entry(s)["commit"]:
        raise Refused("unauthentic", "commit")
    return {"ts": ts, "root": keys.root(ts, ctx, commit)}


def make_request(q, seed):
    body = (
        pre(REQUEST, q["realm"]) + q["node"] + q["cred_serial"] + string(q["group"]) + uint(q["created"], 8)
        + uint(len(q["kids"]), 2) + b"".join(q["kids"])
    )
    return body + sign(seed, REQUEST, q["realm"], body)


def read_request(data, pub):
    want(len(data) <= 512 << 10, "size")
    r = Reader(data)
    q = {"realm": r.pre(REQUEST), "node": r.take(16), "cred_serial": r.take(16), "group": r.string(), "created": r.uint(8)}
    count = r.uint(2)
    want(1 <= count <= 256, "count")
    q["kids"] = [r.take(8) for _ in range(count)]
    body = data[: r.at]
    signature = r.take(64)
    r.end()
    want(1 <= len(q["group"]) <= 249, "group")
    want(ascending(q["kids"]), "order")
    verify(signer(pub, q), REQUEST, q["realm"], body, signature)
    return q


def request_key(q):
    return b"\x06" + q["node"]
