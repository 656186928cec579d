// kafkajs as an unchanged application: produces the records of a file, or writes what it
// consumes to one. The job is a JSON object, the only argument; the file format is that of
// tests/e2e/records. Exit codes: 0 done, 3 the client reported an error, 4 time ran out.
'use strict'
const fs = require('fs')
const { Kafka, CompressionTypes, Partitioners, logLevel } = require('kafkajs')

const ERROR = 3
const TIMEOUT = 4
const job = JSON.parse(process.argv[2])
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP }

function fail(code, message) {
  fs.writeSync(2, `error: ${message}\n`)
  process.exit(code)
}

function describe(e) {
  for (; e; e = e.cause) {
    if (e.type) return `${e.type}: ${e.message}`
    if (!e.cause) return `${e.name}: ${e.message}`
  }
}

function* readRecords(path) {
  const data = fs.readFileSync(path)
  let at = 0
  const int = () => data.readInt32BE((at += 4) - 4)
  const long = () => data.readBigInt64BE((at += 8) - 8)
  const field = () => {
    const n = int()
    return n < 0 ? null : data.subarray(at, (at += n))
  }
  while (at < data.length) {
    const partition = int()
    long()
    const timestamp = long()
    const key = field()
    const value = field()
    const headers = {}
    for (let n = int(); n > 0; n--) {
      const name = field().toString()
      const v = field()
      if (!(name in headers)) headers[name] = v
      else headers[name] = [].concat(headers[name], v)
    }
    yield { partition, key, value, headers, ...(timestamp >= 0n && { timestamp: String(timestamp) }) }
  }
}

function field(b) {
  const n = Buffer.alloc(4)
  n.writeInt32BE(b === null || b === undefined ? -1 : b.length)
  return b ? [n, b] : [n]
}

function encode(partition, m) {
  const head = Buffer.alloc(20)
  head.writeInt32BE(partition)
  head.writeBigInt64BE(BigInt(m.offset), 4)
  head.writeBigInt64BE(BigInt(m.timestamp), 12)
  const pairs = Object.entries(m.headers || {}).flatMap(([k, v]) => (Array.isArray(v) ? v : [v]).map((x) => [k, x]))
  const count = Buffer.alloc(4)
  count.writeInt32BE(pairs.length)
  return Buffer.concat([
    head, ...field(m.key), ...field(m.value), count,
    ...pairs.flatMap(([k, v]) => [...field(Buffer.from(k)), ...field(v)]),
  ])
}

async function produce(kafka) {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, idempotent: job.idempotent })
  await producer.connect()
  let chunk = []
  let size = 0
  const flush = async () => {
    await producer.send({ topic: job.topic, compression: codecs[job.codec], messages: chunk, timeout: job.timeout_ms })
    chunk = []
    size = 0
  }
  for (const m of readRecords(job.file)) {
    chunk.push(m)
    size += (m.value ? m.value.length : 0) + 200
    if (size > 400_000) await flush()
  }
  if (chunk.length) await flush()
  await producer.disconnect()
}

async function consume(kafka) {
  const consumer = kafka.consumer({ groupId: job.group, maxWaitTimeInMs: 100, readUncommitted: job.isolation === 'read_uncommitted', retry: { retries: 5, restartOnFailure: async () => false } })
  const out = fs.openSync(job.file, 'w')
  let n = 0
  const late = setTimeout(() => fail(TIMEOUT, `${n} of ${job.count} records in time`), job.timeout_ms)
  consumer.on(consumer.events.CRASH, ({ payload }) => fail(ERROR, describe(payload.error)))
  await consumer.connect()
  await consumer.subscribe({ topic: job.topic, fromBeginning: true })
  await new Promise((resolve) => consumer.run({
    eachBatch: async ({ batch }) => {
      const got = []
      for (const m of batch.messages) {
        if (n >= job.count) break
        got.push(encode(batch.partition, m))
        n++
      }
      if (got.length) fs.writeSync(out, Buffer.concat(got))
      if (n >= job.count) resolve()
    },
  }))
  clearTimeout(late)
  await consumer.disconnect()
}

const kafka = new Kafka({
  clientId: 'app', brokers: job.bootstrap.split(','), logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 100, retries: 8 }, ...job.properties,
})
const modes = { produce, consume }
modes[job.mode](kafka).then(() => process.exit(0), (e) => fail(ERROR, describe(e)))
