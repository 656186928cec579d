// Command module becomes e2ee.wasm: the functions of SPEC.md §3 around package filter. What
// is here moves values between linear memory and the filter and checks every pointer; it
// decides nothing about batches. It is built for GOOS=wasip1 only, with
// -buildmode=c-shared; natively there is nothing to run.
package main

// main does not run: a reactor is entered through its exports.
func main() {}
