//go:build !wasip1

package kernel

// Native is as in the module: see foreign_wasip1.go. There is no host to ask.
func Native() bool { return false }

func (*Program) callForeign() (done, made int) { panic("no host") }
