"""Kafka's record batch v2, with the codecs that a broker may use on the outer batch."""

import gzip
import io
import struct
import zlib

import lz4.frame
import zstandard

from .primitives import Refused

_HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_SIZE = _HEADER.size  # 61
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 1 << 3, 1 << 4, 1 << 5
FIELDS = (
    "base_offset", "length", "leader_epoch", "magic", "crc", "attributes", "last_offset_delta",
    "base_timestamp", "max_timestamp", "producer_id", "producer_epoch", "base_sequence", "count",
)


def _table():
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82F63B78 if i & 1 else 0)
        yield i


_CRC = tuple(_table())


def crc32c(data):
    c = 0xFFFFFFFF
    for b in data:
        c = _CRC[(c ^ b) & 0xFF] ^ c >> 8
    return c ^ 0xFFFFFFFF


def malformed(why):
    return Refused("malformed", why)


def read_batch(data):
    """The fields of the one batch that data is, and its record section."""
    if len(data) < HEADER_SIZE:
        raise malformed("shorter than a header")
    h = dict(zip(FIELDS, _HEADER.unpack_from(data)))
    if h["magic"] != 2:
        raise Refused("magic")
    if h["length"] + 12 != len(data):
        raise malformed("length")
    if crc32c(data[21:]) != h["crc"]:
        raise Refused("crc")
    return h, data[HEADER_SIZE:]


def make_batch(h, section):
    h = dict(h, magic=2, crc=0, length=HEADER_SIZE - 12 + len(section))
    b = bytearray(_HEADER.pack(*(h[f] for f in FIELDS)) + section)
    struct.pack_into(">I", b, 17, crc32c(bytes(b[21:])))
    return bytes(b)


def varint(v):
    v = (v << 1) ^ (v >> 63)
    out = bytearray()
    while True:
        out.append(v & 0x7F | (0x80 if v > 0x7F else 0))
        v >>= 7
        if not v:
            return bytes(out)


class _Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n < 0 or n > len(self.data) - self.at:
            raise malformed("record cut short")
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self, bits):
        v = shift = 0
        while True:
            b = self.take(1)[0]
            v |= (b & 0x7F) << shift
            if b < 0x80:
                break
            shift += 7
        if v >> bits or shift and b == 0:
            raise malformed("varint")
        return v >> 1 ^ -(v & 1)

    def nullable(self):
        n = self.varint(32)
        return None if n == -1 else self.take(n)


def read_records(section, count):
    """The records of an uncompressed section: dicts of delta, offset, key, value, headers."""
    r, out = _Reader(section), []
    while r.at < len(section):
        one = _Reader(r.take(r.varint(32)))
        rec = {"attributes": one.take(1)[0], "delta": one.varint(64), "offset": one.varint(32)}
        rec["key"], rec["value"] = one.nullable(), one.nullable()
        n = one.varint(32)
        if n < 0:
            raise malformed("headers")
        rec["headers"] = [(one.take(one.varint(32)), one.nullable()) for _ in range(n)]
        if one.at != len(one.data):
            raise malformed("record with a rest")
        out.append(rec)
    if len(out) != count:
        raise malformed("record count")
    return out


def _nullable(b):
    return varint(-1) if b is None else varint(len(b)) + b


def make_records(records):
    out = b""
    for r in records:
        body = (
            bytes([r.get("attributes", 0)]) + varint(r["delta"]) + varint(r["offset"])
            + _nullable(r["key"]) + _nullable(r["value"]) + varint(len(r["headers"]))
            + b"".join(varint(len(k)) + k + _nullable(v) for k, v in r["headers"])
        )
        out += varint(len(body)) + body
    return out


def compress(codec, section):
    return {
        NONE: lambda b: b,
        GZIP: gzip.compress,
        LZ4: lz4.frame.compress,
        ZSTD: zstandard.ZstdCompressor().compress,
    }[codec](section)


def decompress(codec, section, cap):
    try:
        if codec == NONE:
            out = section
        elif codec == GZIP:
            d = zlib.decompressobj(31)
            out = d.decompress(section, cap + 1)
            if not d.eof and len(out) <= cap:
                raise malformed("gzip")
        elif codec == SNAPPY:
            out = _snappy(section)
        elif codec == LZ4:
            d = lz4.frame.LZ4FrameDecompressor()
            out = d.decompress(section, cap + 1)
            if not d.eof and len(out) <= cap:
                raise malformed("lz4")
        elif codec == ZSTD:
            out = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(section)).read(cap + 1)
        else:
            raise Refused("codec")
    except (zlib.error, RuntimeError, zstandard.ZstdError, IndexError) as e:
        raise malformed(str(e)) from None
    if len(out) > cap:
        raise Refused("size")
    return out


def _snappy(data):
    if data[:8] != b"\x82SNAPPY\0":
        return _snappy_block(data)
    out, at = b"", 16
    while at < len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        out += _snappy_block(data[at + 4 : at + 4 + n])
        at += 4 + n
    return out


def _snappy_block(data):
    want = at = shift = 0
    while True:
        want |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            break
        shift += 7
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        kind, n = tag & 3, (tag >> 2) + 1
        if kind == 0:
            if n > 60:
                extra = n - 60
                n = int.from_bytes(data[at : at + extra], "little") + 1
                at += extra
            out += data[at : at + n]
            at += n
            continue
        if kind == 1:
            n, offset = (tag >> 2 & 7) + 4, tag >> 5 << 8 | data[at]
            at += 1
        else:
            size = 2 if kind == 2 else 4
            offset = int.from_bytes(data[at : at + size], "little")
            at += size
        if not 0 < offset <= len(out):
            raise malformed("snappy")
        for _ in range(n):
            out.append(out[-offset])
    if len(out) != want:
        raise malformed("snappy")
    return bytes(out)
