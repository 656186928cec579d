"""What takes the place of records: the packed format (PROTOCOL.md §2.4) and the record
format (§2.5). A key is what a consumer found under a kid: a pair (topic, root)."""

import struct

from . import kafka
from .keys import leaf_key, pctx
from .primitives import Refused, xchacha_open, xchacha_seal

PACKED_MAGIC, RECORD_MAGIC, FLAGS = 0xE2, 0xE1, 0x10
_PACKED = struct.Struct(">BB8s3sI8s")
_PREAMBLE = struct.Struct(">Bqq")
_RECORD = struct.Struct(">BB8s3sH8s")
MAX_RECORDS = 1 << 20


def packed_aad(header, place):
    return b"KX1 pkt v1\0" + header + place


def packed_nonce(salt):
    return salt + bytes(12) + b"\xff" * 4


def seal_value(root, kid, leaf, nrec, salt, place, plain):
    header = _PACKED.pack(PACKED_MAGIC, FLAGS, kid, leaf.to_bytes(3, "big"), nrec, salt)
    return header + xchacha_seal(leaf_key(root, leaf), packed_nonce(salt), plain, packed_aad(header, place))


def open_value(value, keys, topic, partition, nrec):
    """The plaintext of a packed value."""
    if len(value) < _PACKED.size + 16:
        raise Refused("unauthentic", "short value")
    magic, flags, kid, leaf, count, salt = _PACKED.unpack_from(value)
    if (magic, flags, count) != (PACKED_MAGIC, FLAGS, nrec):
        raise Refused("unauthentic", "header")
    if kid not in keys:
        raise Refused("unknown kid")
    of, root = keys[kid]
    if of != topic:
        raise Refused("unauthentic", "kid of another topic")
    key = leaf_key(root, int.from_bytes(leaf, "big"))
    aad = packed_aad(value[: _PACKED.size], pctx(topic, partition))
    return xchacha_open(key, packed_nonce(salt), value[_PACKED.size :], aad)


def seal_batch(batch, root, kid, leaf, salt, topic, partition, outer):
    """The packed batch of a client's batch; outer is the codec of the outer section."""
    h, section = kafka.read_batch(batch)
    if h["count"] != h["last_offset_delta"] + 1 or h["count"] < 1 or h["attributes"] & kafka.CONTROL:
        raise Refused("malformed", "not to be sealed")
    codec = h["attributes"] & 7
    plain = _PREAMBLE.pack(codec, h["base_timestamp"], h["max_timestamp"]) + section
    value = seal_value(root, kid, leaf, h["count"], salt, pctx(topic, partition), plain)
    records = [{"delta": h["max_timestamp"] - h["base_timestamp"], "offset": 0, "key": None, "value": value, "headers": []}]
    records += [{"delta": 0, "offset": i, "key": None, "value": b"", "headers": []} for i in range(1, h["count"])]
    h["attributes"] = h["attributes"] & ~7 | outer
    return kafka.make_batch(h, kafka.compress(outer, kafka.make_records(records)))


def _is_marker(h, section):
    if h["attributes"] & 7 or h["count"] != 1:
        return False
    r = kafka.read_records(section, 1)[0]
    key = r["key"] or b""
    return (
        not r["headers"] and len(key) == 4 and key[2:] in (b"\0\0", b"\0\1") and len(r["value"] or b"") <= 16
    )


def open_batch(batch, keys, topic, partition, cap):
    """The client's batch, or batch itself where it is one that passes as it is."""
    h, section = kafka.read_batch(batch)
    if h["attributes"] & kafka.CONTROL:
        if _is_marker(h, section):
            return batch
        raise Refused("malformed", "control batch")
    if h["count"] == 0 and not section:
        return batch
    if h["count"] < 1 or h["count"] > MAX_RECORDS:
        raise Refused("malformed", "count")
    records = kafka.read_records(kafka.decompress(h["attributes"] & 7, section, cap), h["count"])
    if not any((r["value"] or b"")[:1] == bytes([PACKED_MAGIC]) for r in records):
        raise Refused("plaintext")
    for i, r in enumerate(records):
        if r["key"] is not None or r["headers"] or r["attributes"] or r["offset"] != i or i > 0 and r["value"] != b"":
            raise Refused("unauthentic", "shape")
    known = 7 | kafka.LOG_APPEND_TIME | kafka.TRANSACTIONAL
    if h["last_offset_delta"] + 1 != len(records) or h["attributes"] & ~known:
        raise Refused("unauthentic", "batch header")
    plain = open_value(records[0]["value"], keys, topic, partition, len(records))
    if len(plain) < _PREAMBLE.size or plain[0] > kafka.ZSTD:
        raise Refused("malformed", "plaintext")
    codec, h["base_timestamp"], newest = _PREAMBLE.unpack_from(plain)
    if not h["attributes"] & kafka.LOG_APPEND_TIME:
        h["max_timestamp"] = newest
    h["attributes"] = h["attributes"] & ~7 | codec
    return kafka.make_batch(h, plain[_PREAMBLE.size :])


def _counted(b):
    return b"\xff" * 4 if b is None else len(b).to_bytes(4, "big") + b


def record_aad(header, place, key, headers):
    hdrs = b"".join(len(k).to_bytes(2, "big") + k + _counted(v) for k, v in headers if k != b"_e2ee")
    return b"KX1 rec v1\0" + header + place + _counted(key) + _counted(hdrs)


def seal_record(root, kid, leaf, ordinal, salt, topic, partition, key, headers, value):
    """What stands as the record's value, and as its header _e2ee where the value is null."""
    header = _RECORD.pack(RECORD_MAGIC, FLAGS, kid, leaf.to_bytes(3, "big"), ordinal, salt)
    aad = record_aad(header, pctx(topic, partition), key, headers)
    nonce = salt + bytes(12) + ordinal.to_bytes(4, "big")
    sealed = header + xchacha_seal(leaf_key(root, leaf), nonce, value or b"", aad)
    return (None, sealed) if value is None else (sealed, None)


def open_record(sealed, keys, topic, partition, key, headers):
    """The plaintext of a value, or the empty one of a header _e2ee."""
    if len(sealed) < _RECORD.size + 16:
        raise Refused("unauthentic", "short value")
    magic, flags, kid, leaf, ordinal, salt = _RECORD.unpack_from(sealed)
    if (magic, flags) != (RECORD_MAGIC, FLAGS) or ordinal == 0xFFFF:
        raise Refused("unauthentic", "header")
    if kid not in keys or keys[kid][0] != topic:
        raise Refused("unknown kid")
    aad = record_aad(sealed[: _RECORD.size], pctx(topic, partition), key, headers)
    nonce = salt + bytes(12) + ordinal.to_bytes(4, "big")
    return xchacha_open(leaf_key(keys[kid][1], int.from_bytes(leaf, "big")), nonce, sealed[_RECORD.size :], aad)
