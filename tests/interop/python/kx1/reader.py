"""A node that reads the control topics of its realm: what PROTOCOL.md §2.2 and §2.6 say of every
record, and the opening of what is wrapped for it. Of policy, times and order it knows nothing."""

from . import authority, hpke, keys, shares, wire
from .primitives import Refused

ISSUER = 4


class Realm:
    """The Credentials of a realm as far as they were read."""

    def __init__(self, root_pub):
        self.root, self.id = root_pub, keys.realm_id(root_pub)
        self.by_serial = {}

    def issuers(self, pub):
        return [c for c in self.by_serial.values() if c["subject_pub"] == pub and c["roles"] & ISSUER]

    def credential(self, data):
        c = wire.read_credential(data)
        known = self.by_serial.get(c["serial"])
        if known is not None and known != c:
            raise Refused("unauthentic", "a serial that is taken")
        if c["realm"] != self.id:
            raise Refused("unauthentic", "another realm")
        if c["issuer_pub"] != self.root:
            if not self.issuers(c["issuer_pub"]):
                raise Refused("unknown credential", "its issuer's")
            if c["roles"] & ISSUER:
                raise Refused("unauthentic", "an issuer certified by an issuer")
        for other in self.by_serial.values():
            if (other["node"], other["lineage"]) == (c["node"], c["lineage"]) and other["subject_pub"] != c["subject_pub"]:
                raise Refused("unauthentic", "two keys in one lineage")
        self.by_serial[c["serial"]] = c
        return c

    def signer(self, serial, node):
        """The key of the Credential of a serial, which must be the node's."""
        c = self.by_serial.get(serial)
        if c is None:
            raise Refused("unknown credential", serial.hex())
        if c["node"] != node:
            raise Refused("unauthentic", "the Credential of another node")
        return c["subject_pub"]

    def author(self, m):
        self.here(m)
        return self.signer(m["cred_serial"], m["node"])

    def sharer(self, m):
        self.here(m)
        return self.signer(m["cred_serial"], m["sharer"])

    def here(self, m):
        if m["realm"] != self.id:
            raise Refused("other realm")

    def state(self, data):
        s = authority.read_state(data)
        self.here(s)
        if s["issuer_pub"] != self.root and not self.issuers(s["issuer_pub"]):
            raise Refused("unknown credential", "its issuer's")
        return s

    def bundle(self, data):
        b = wire.read_bundle(data, self.author)
        hpke.check(b["kem_pub"])
        return b


def read(realm, topic, partition, key, value, node, seeds):
    """One record, as the node with these prekey seeds reads it. Returns the kids that it opens, in
    order."""
    kind = key[0]
    if topic == "roster":
        reads = {1: (realm.credential, wire.credential_key), 2: (realm.state, authority.state_key), 3: (realm.bundle, wire.bundle_key),
                 6: (lambda v: shares.read_request(v, realm.author), shares.request_key),
                 9: (lambda v: authority.read_renewal(v, realm.author), authority.renewal_key)}
        if kind not in reads:
            raise Refused("malformed", "type")
        parse, key_of = reads[kind]
        if key_of(parse(value)) != key:
            raise Refused("malformed", "another key")
        return []
    if kind == 5:
        return read_share(realm, partition, key, value, node, seeds)
    part = wire.read_part(value, realm.author)
    if wire.grant_key(part) != key or part["partition"] != partition:
        raise Refused("malformed", "another key or partition")
    return [keys.kid(t["commit"]) for t in open_grant(part, node, seeds)]


def open_grant(part, node, seeds):
    """The grant's topics with their keys, as the node finds them in its part."""
    wrap = next((w for w in part["wraps"] if w["node"] == node), None)
    if wrap is None:
        return []
    pub, seed = prekey(wrap["prekey_id"], seeds)
    es = hpke.open(seed, wire.grant_info(part["header"], node, pub), wrap["hpke"])
    found = []
    for t in part["topics"]:
        ctx = keys.context(part["realm"], part["node"], part["instance"], part["epoch"], t["topic"])
        ts = keys.topic_secret(es, ctx)
        if keys.commitment(ts, ctx) != t["commit"]:
            raise Refused("unauthentic", "commit")
        found.append({**t, "kid": keys.kid(t["commit"]), "root": keys.root(ts, ctx, t["commit"])})
    return found


def read_share(realm, partition, key, value, node, seeds):
    s = shares.read_share(value, realm.author, realm.sharer)
    if shares.share_key(s) != key or keys.grants_partition(s["recipient"]) != partition:
        raise Refused("malformed", "another key or partition")
    if s["recipient"] != node:
        return []
    shares.open_share(s, prekey(s["prekey_id"], seeds)[1])
    return [shares.share_kid(s)]


def prekey(prekey_id, seeds):
    for seed in seeds:
        pub = hpke.public(seed)
        if keys.prekey_id(pub) == prekey_id:
            return pub, seed
    raise Refused("no prekey")
