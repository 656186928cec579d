// Runs the kernel in Node's V8: `node v8.js MODULE SCRATCH TABLE KEYS AAD BUFFER`. For each line
// "NAME BYTES TIMES" it writes how many nanoseconds those calls took.
const fs = require('fs')
const readline = require('readline')
const [scratch, table, keys, aad, buffer] = process.argv.slice(3).map(Number)
const { exports: kernel } = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(process.argv[2])))
const work = {
  seal: n => kernel.seal(buffer, n, aad, 70, keys, keys + 32, scratch),
  crc32c: n => kernel.crc32c(0, buffer, n, table, scratch),
}
readline.createInterface({ input: process.stdin }).on('line', line => {
  const [name, n, times] = line.split(' ')
  const begin = process.hrtime.bigint()
  for (let i = 0; i < +times; i++) work[name](+n)
  console.log(String(process.hrtime.bigint() - begin))
})
