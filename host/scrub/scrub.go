// Package scrub keeps secrets from staying behind in this process's memory (PROTOCOL.md
// §2.18). What the program holds itself it overwrites in place; but the standard library's
// cryptography copies keys to the heap and the stack, where nobody else can reach them.
//
// It rests on runtime/secret, which Go has for linux/amd64 and linux/arm64 in builds with
// GOEXPERIMENT=runtimesecret, as the Makefile makes them. In other builds the copies stay
// until their memory is used again.
package scrub

import (
	"runtime"
	"time"
)

// Period is how often a process that handles secrets calls Collect.
const Period = 30 * time.Second

// Do runs f, and overwrites the stack and the registers that it used before it returns. What
// f allocated is overwritten by the first collection that finds it unreachable.
func Do(f func()) { do(f) }

// Collect has the garbage collector overwrite what was allocated under Do and is unreachable:
// twice, since what the library's caches have made of a key goes when that was collected.
func Collect() {
	if Works {
		runtime.GC()
		runtime.GC()
	}
}

// Stack overwrites the part of the stack on which the caller's callees worked, where Do cannot
// be used: f would start goroutines or wait for long. Called before them as well, it makes the
// stack grow while no key is on it: what it grows out of is not wiped.
//
//go:noinline
func Stack() {
	var frames [24 << 10]byte
	clear(frames[:])
	runtime.KeepAlive(&frames)
}
