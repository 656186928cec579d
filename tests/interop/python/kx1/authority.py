"""AuthorityState and Renewal: PROTOCOL.md §2.6, §2.12."""

from .primitives import ed25519_sign, sha256
from .wire import Reader, ascending, covered, pre, sign, signer, uint, verify, want

STATE, RENEWAL = 2, 9
MAX_REVOKED = 16384


def make_state(s, seed):
    body = (
        pre(STATE, s["realm"]) + uint(s["seq"], 8) + uint(s["issued"], 8) + uint(s["next_update"], 8) + s["prev_digest"]
        + uint(len(s["revoked"]), 2) + b"".join(r["serial"] + uint(r["revoked_at"], 8) for r in s["revoked"])
        + s["issuer_pub"]
    )
    return body + sign(seed, STATE, s["realm"], body)


def read_state(data):
    """The message, its signature verified with the issuer_pub that it names, and its digest, which
    its successor names."""
    want(len(data) <= 512 << 10, "size")
    r = Reader(data)
    s = {"realm": r.pre(STATE), "seq": r.uint(8), "issued": r.uint(8), "next_update": r.uint(8), "prev_digest": r.take(32)}
    count = r.uint(2)
    want(count <= MAX_REVOKED, "count")
    s["revoked"] = [{"serial": r.take(16), "revoked_at": r.uint(8)} for _ in range(count)]
    s["issuer_pub"] = r.take(32)
    body = data[: r.at]
    signature = r.take(64)
    r.end()
    want(1 <= s["seq"] <= s["issued"] <= s["next_update"], "seq or times")
    want(ascending([v["serial"] for v in s["revoked"]]), "order")
    verify(s["issuer_pub"], STATE, s["realm"], body, signature)
    s["digest"] = sha256(body)
    return s


def state_key(s):
    return b"\x02" + s["realm"]


def make_renewal(m, old_seed, new_seed):
    body = pre(RENEWAL, m["realm"]) + m["node"] + m["cred_serial"] + m["id_pub"]
    message = covered(RENEWAL, m["realm"], body)
    return body + ed25519_sign(old_seed, message) + ed25519_sign(new_seed, message)


def read_renewal(data, old_pub):
    """The message, its signatures verified with the key it replaces and the one it names."""
    r = Reader(data)
    m = {"realm": r.pre(RENEWAL), "node": r.take(16), "cred_serial": r.take(16), "id_pub": r.take(32)}
    body = data[: r.at]
    old, new = r.take(64), r.take(64)
    r.end()
    verify(signer(old_pub, m), RENEWAL, m["realm"], body, old)
    verify(m["id_pub"], RENEWAL, m["realm"], body, new)
    return m


def renewal_key(m):
    return b"\x09" + m["node"]
