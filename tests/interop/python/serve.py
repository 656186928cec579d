"""Answers requests for the second implementation: one JSON object a line on standard input,
one on standard output. Bytes are {"hex": "…"}. A request names a function in "op" and its
arguments; the answer is {"ok": result}, or {"refused": kind} where the input is not right."""

import json
import sys

from kx1 import hpke, keys, primitives, sealed, wire


def derive(es, realm, node, instance, epoch, topic, leaves, partition):
    ctx = keys.context(realm, node, instance, epoch, topic)
    ts = keys.topic_secret(es, ctx)
    commit = keys.commitment(ts, ctx)
    root = keys.root(ts, ctx, commit)
    return {
        "ts": ts, "commit": commit, "kid": keys.kid(commit), "root": root,
        "leaves": [keys.leaf_key(root, i) for i in leaves], "pctx": keys.pctx(topic, partition),
    }


def make_grant(header, es, recipients, seed):
    """A whole grant: header lacks its commits and roster digest, which follow from the rest."""
    header["topics"] = [
        {"topic": t, "commit": derive(es, header["realm"], header["node"], header["instance"], header["epoch"], t, [], 0)["commit"]}
        for t in sorted(header["topics"])
    ]
    header["roster_digest"] = wire.roster_digest(recipients)
    encoded = wire.make_header(header)
    return {"key": wire.grant_key(header), "parts": wire.make_parts(encoded, header["realm"], recipients, es, seed)}


def open_grant(part, producer_pub, node, seeds):
    """The grant's fields, its es and its keys by topic, as the node finds them in its part."""
    h = wire.read_part(part, producer_pub)
    wrap = next((w for w in h["wraps"] if w["node"] == node), None)
    if wrap is None:
        raise primitives.Refused("no wrap")
    for seed in seeds:
        pub = hpke.public(seed)
        if keys.prekey_id(pub) != wrap["prekey_id"]:
            continue
        es = hpke.open(seed, wire.grant_info(h["header"], node, pub), wrap["hpke"])
        found = []
        for t in h["topics"]:
            d = derive(es, h["realm"], h["node"], h["instance"], h["epoch"], t["topic"], [], 0)
            if d["commit"] != t["commit"]:
                raise primitives.Refused("commit")
            found.append({"topic": t["topic"], "kid": d["kid"], "root": d["root"]})
        del h["wraps"], h["header"]
        return {"fields": h, "key": wire.grant_key(h), "keys": found}
    raise primitives.Refused("no prekey")


def read_part(data, pub):
    """What is public of a part, and its Kafka key."""
    h = wire.read_part(data, pub)
    del h["wraps"], h["header"]
    return {"fields": h, "key": wire.grant_key(h)}


def held(roots):
    return {r["kid"]: (r["topic"], r["root"]) for r in roots}


def identity(seed):
    pub = primitives.ed25519_public(seed)
    return {"pub": pub, "node": keys.node_id(pub), "realm": keys.realm_id(pub)}


def prekey(seed):
    pub = hpke.public(seed)
    return {"pub": pub, "id": keys.prekey_id(pub)}


def keyed(read, key):
    def f(**args):
        m = read(**args)
        return {"fields": m, "key": key(m)}

    return f


OPS = {
    "derive": derive,
    "identity": identity,
    "prekey": prekey,
    "make_csr": wire.make_csr,
    "read_csr": keyed(wire.read_csr, lambda c: b""),
    "make_credential": wire.make_credential,
    "read_credential": keyed(wire.read_credential, wire.credential_key),
    "make_bundle": wire.make_bundle,
    "read_bundle": keyed(wire.read_bundle, wire.bundle_key),
    "read_part": read_part,
    "roster_digest": wire.roster_digest,
    "make_grant": make_grant,
    "open_grant": open_grant,
    "seal_batch": sealed.seal_batch,
    "open_batch": lambda roots, **args: sealed.open_batch(keys=held(roots), **args),
    "seal_record": sealed.seal_record,
    "open_record": lambda roots, **args: sealed.open_record(keys=held(roots), **args),
}


def decode(o):
    return bytes.fromhex(o["hex"]) if set(o) == {"hex"} else o


def plain(v):
    if isinstance(v, bytes):
        return {"hex": v.hex()}
    raise TypeError(type(v))


def main():
    for line in sys.stdin:
        request = json.loads(line, object_hook=decode)
        try:
            answer = {"ok": OPS[request.pop("op")](**request)}
        except primitives.Refused as e:
            answer = {"refused": e.kind, "why": str(e)}
        print(json.dumps(answer, default=plain), flush=True)


if __name__ == "__main__":
    main()
