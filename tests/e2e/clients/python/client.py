"""confluent-kafka as an unchanged application: produces the records of a file, or writes what it
consumes to one. The job is a JSON object, the only argument; the file format is that of
tests/e2e/records. Exit codes: 0 done, 3 the client reported an error, 4 time ran out."""

import json
import struct
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer

ERROR, TIMEOUT = 3, 4


def fail(code, message):
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(code)


def read_records(path):
    data = open(path, "rb").read()
    at = 0

    def number(form):
        nonlocal at
        (n,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return n

    def field():
        nonlocal at
        n = number(">i")
        if n < 0:
            return None
        at += n
        return data[at - n : at]

    while at < len(data):
        partition, _, timestamp = number(">i"), number(">q"), number(">q")
        key, value = field(), field()
        headers = [(field().decode(), field()) for _ in range(number(">i"))]
        yield partition, timestamp, key, value, headers


def field(b):
    return struct.pack(">i", -1) if b is None else struct.pack(">i", len(b)) + b


def write_record(out, m):
    headers = m.headers() or []
    out.write(struct.pack(">iqq", m.partition(), m.offset(), m.timestamp()[1]))
    out.write(field(m.key()) + field(m.value()) + struct.pack(">i", len(headers)))
    for name, value in headers:
        out.write(field(name.encode()) + field(value))


def produce(job):
    failed = []
    delivered = 0

    def report(err, _):
        nonlocal delivered
        delivered += 1
        if err is not None and not aborting:
            failed.append(err)

    conf = {
        "bootstrap.servers": job["bootstrap"],
        "compression.type": job["codec"],
        "enable.idempotence": job["idempotent"],
        "linger.ms": 20,
        "message.timeout.ms": job["timeout_ms"],
        "on_delivery": report,
        **job["properties"],
    }
    aborting = False
    if job["transaction"]:
        conf["transactional.id"] = job["topic"]
    p = Producer(conf)
    if job["transaction"]:
        p.init_transactions(job["timeout_ms"] / 1000)
    begun = time.monotonic()
    for i, (partition, timestamp, key, value, headers) in enumerate(read_records(job["file"])):
        if job["transaction"] and i % job["transaction"] == 0:
            p.begin_transaction()
        extra = {"timestamp": timestamp} if timestamp >= 0 else {}
        while True:
            try:
                p.produce(job["topic"], value, key, partition, headers=headers, **extra)
                break
            except BufferError:
                p.poll(0.1)
        p.poll(0)
        if failed:
            break
        if job["per_second"]:
            p.poll(max(0.0, begun + i / job["per_second"] - time.monotonic()))
        if job["transaction"] and (i + 1) % job["transaction"] == 0:
            p.flush(job["timeout_ms"] / 1000)
            if job["abort_every"] and (i // job["transaction"]) % job["abort_every"] == 1:
                aborting = True
                p.abort_transaction(job["timeout_ms"] / 1000)
                aborting = False
            else:
                p.commit_transaction(job["timeout_ms"] / 1000)
    left = p.flush(job["timeout_ms"] / 1000)
    if failed:
        fail(ERROR, f"{failed[0].name()}: {failed[0].str()} ({len(failed)} records)")
    if left:
        fail(TIMEOUT, f"{left} records not delivered in time")


def consume(job):
    c = Consumer(
        {
            "bootstrap.servers": job["bootstrap"],
            "group.id": job["group"],
            "auto.offset.reset": "earliest",
            "isolation.level": job["isolation"],
            "enable.partition.eof": False,
            "fetch.wait.max.ms": 100,
            **job["properties"],
        }
    )
    c.subscribe([job["topic"]])
    deadline = time.monotonic() + job["timeout_ms"] / 1000
    n = 0
    with open(job["file"], "wb") as out:
        while n < job["count"]:
            left = deadline - time.monotonic()
            if left <= 0:
                out.flush()
                fail(TIMEOUT, f"{n} of {job['count']} records in time")
            for m in c.consume(min(500, job["count"] - n), min(left, 1.0)):
                if m.error() is not None:
                    out.flush()
                    fail(ERROR, f"{m.error().name()}: {m.error().str()}")
                write_record(out, m)
                n += 1
    c.close()


job = json.loads(sys.argv[1])
try:
    {"produce": produce, "consume": consume}[job["mode"]](job)
except KafkaException as e:
    fail(ERROR, f"{e.args[0].name()}: {e.args[0].str()}")
