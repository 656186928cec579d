// Runs the kernel in Node's V8: `node check.js MODULE SCRATCH TABLE KEYS AAD BUFFER`, with TABLE's
// content on standard input. For each length to 4096 and some beyond it seals bytes i * 31 + 7 of
// key, nonce, associated data and message, and writes a line: the length, the SHA-256 of what
// is sealed, CRC-32C of the message. It stops where that does not open again, opens with a
// flipped bit, changes when it is refused, or leaves scratch memory.
const { createHash } = require('crypto')
const fs = require('fs')
const [scratch, table, keys, aad, buffer] = process.argv.slice(3).map(Number)
const { exports: kernel } = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(process.argv[2])))
const memory = Buffer.from(kernel.memory.buffer)
fs.readFileSync(0).copy(memory, table)
const fill = (at, n) => { for (let i = 0; i < n; i++) memory[at + i] = i * 31 + 7 }
const check = (what, n) => {
  if (!what || memory.subarray(scratch, scratch + 16384).some(b => b)) throw new Error(`length ${n}`)
}
fill(keys, 56)
fill(aad, 70)
const lengths = [...Array(4097).keys(), 16384, 99999, 1048576]
for (const n of lengths) {
  fill(buffer, n)
  const crc = kernel.crc32c(0, buffer, n, table, scratch) >>> 0
  kernel.seal(buffer, n, aad, 70, keys, keys + 32, scratch)
  const sealed = Buffer.from(memory.subarray(buffer, buffer + n + 16))
  check(true, n)
  memory[buffer + n * 7 % (n + 16)] ^= 4
  const flipped = Buffer.from(memory.subarray(buffer, buffer + n + 16))
  check(!kernel.open(buffer, n, aad, 70, keys, keys + 32, scratch), n)
  check(memory.compare(flipped, 0, n + 16, buffer, buffer + n + 16) === 0, n)
  sealed.copy(memory, buffer)
  check(kernel.open(buffer, n, aad, 70, keys, keys + 32, scratch), n)
  const opened = Buffer.from(memory.subarray(buffer, buffer + n))
  fill(buffer, n)
  check(memory.compare(opened, 0, n, buffer, buffer + n) === 0, n)
  console.log(n, createHash('sha256').update(sealed).digest('hex'), crc)
}
