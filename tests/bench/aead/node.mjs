// Runs the guest named by the first argument: "seal SIZE MESSAGES" or "open …" on a line of
// standard input calls that export, and the line written is what it returned.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { WASI } from 'node:wasi';

const wasi = new WASI({ version: 'preview1' });
const module = await WebAssembly.compile(readFileSync(process.argv[1]));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
wasi.initialize(instance);
console.log(process.version);
for await (const line of createInterface({ input: process.stdin })) {
  const [name, size, messages] = line.split(' ');
  console.log(instance.exports[name](Number(size), Number(messages)));
}
