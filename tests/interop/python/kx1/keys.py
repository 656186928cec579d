"""Identifiers and the key hierarchy: PROTOCOL.md §2.2 and §2.3. Topics are bytes."""

from .primitives import chacha20_block, hkdf_expand, sha256

DEPTH = 24


def realm_id(root_pub):
    return sha256(b"KX1 realm v1\0", root_pub)[:16]


def node_id(first_pub):
    return sha256(b"KX1 node v1\0", first_pub)[:16]


def prekey_id(kem_pub):
    return sha256(b"KX1 prekey v1\0", kem_pub)[:8]


def grants_partition(node):
    return int.from_bytes(node[:4], "big") % 16


def _name(topic):
    return len(topic).to_bytes(2, "big") + topic


def context(realm, producer, instance, epoch, topic):
    return realm + producer + instance + epoch.to_bytes(4, "big") + _name(topic)


def topic_secret(es, ctx):
    return hkdf_expand(es, b"KX1 topic v1\0" + ctx, 32)


def commitment(ts, ctx):
    return hkdf_expand(ts, b"KX1 commit v1\0" + ctx, 32)


def kid(commit):
    return sha256(b"KX1 kid v1\0", commit)[:8]


def root(ts, ctx, commit):
    return hkdf_expand(ts, b"KX1 root v1\0" + ctx + commit, 32)


def pctx(topic, partition):
    return sha256(b"KX1 part v1\0", _name(topic), partition.to_bytes(4, "big"))


def descend(node, path, levels):
    """The node that is so many levels below, along the low bits of path, highest first."""
    for i in reversed(range(levels)):
        both = chacha20_block(node, b"KX1-tree-v1\0", 0)
        node = both[32:] if path >> i & 1 else both[:32]
    return node


def leaf_key(root_node, leaf):
    return descend(root_node, leaf, DEPTH)
