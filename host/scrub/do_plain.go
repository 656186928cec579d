//go:build !(goexperiment.runtimesecret && linux && (amd64 || arm64))

package scrub

// Works says whether this build overwrites what the standard library copies.
const Works = false

func do(f func()) { f() }
