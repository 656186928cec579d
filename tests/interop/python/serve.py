"""Answers requests for the second implementation: one JSON object a line on standard input,
one on standard output. Bytes are {"hex": "…"}. A request names a function in "op" and its
arguments; the answer is {"ok": result}, or {"refused": kind} where the input is not right."""

import json
import sys

from kx1 import authority, enrolment, hpke, keys, noise, primitives, reader, sealed, shares, wire


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
    """The grant's fields and its keys by topic, as the node finds them in its part."""
    h = wire.read_part(part, producer_pub)
    found = reader.open_grant(h, node, seeds)
    if not found:
        raise primitives.Refused("no wrap")
    del h["wraps"], h["header"]
    return {"fields": h, "key": wire.grant_key(h), "keys": [{k: f[k] for k in ("topic", "kid", "root")} for f in found]}


def read_part(data, pub):
    """What is public of a part, and its Kafka key."""
    h = wire.read_part(data, pub)
    del h["wraps"], h["header"]
    return {"fields": h, "key": wire.grant_key(h)}


def read_share(data, producer_pub, sharer_pub):
    s = shares.read_share(data, producer_pub, sharer_pub)
    key = shares.share_key(s)
    del s["hpke"], s["grant"]["header"], s["grant"]["wraps_hash"]
    return {"fields": s, "key": key}


def open_share(data, producer_pub, sharer_pub, seed):
    s = shares.read_share(data, producer_pub, sharer_pub)
    return {**shares.open_share(s, seed), "kid": shares.share_kid(s)}


def make_share(s, part, kem_pub, ts, seed):
    return shares.make_share(s, shares.proof_of(part), kem_pub, ts, seed)


def read_control(root, before, record, node, seeds):
    """What a node makes of a record after what it read before; the kids that it opens."""
    realm = reader.Realm(root)
    for credential in before:
        realm.credential(credential)
    return reader.read(realm, node=node, seeds=seeds, **record)


sessions = {}


def enrol(session, step, **args):
    """One step of a node or an issuer that enrols: step names a method, or makes the end."""
    if step in ("Node", "Issuer"):
        sessions[session] = getattr(enrolment, step)(**args)
        return None
    return getattr(sessions[session], step)(**args)


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
    "make_state": authority.make_state,
    "read_state": keyed(authority.read_state, authority.state_key),
    "make_renewal": authority.make_renewal,
    "read_renewal": keyed(authority.read_renewal, authority.renewal_key),
    "make_share": make_share,
    "read_share": read_share,
    "open_share": open_share,
    "make_request": shares.make_request,
    "read_request": keyed(shares.read_request, shares.request_key),
    "x25519": noise.public,
    "make_ticket": enrolment.make_ticket,
    "read_ticket": keyed(enrolment.read_ticket, lambda t: b""),
    "read_enrolment_key": keyed(enrolment.read_record_key, lambda k: enrolment.record_key(**k)),
    "enrol": enrol,
    "read_control": read_control,
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
