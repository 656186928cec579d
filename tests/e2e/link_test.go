package e2e

import (
	"slices"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// A link is where a producer and a consumer of one test connect.
type link struct {
	produce, consume string
	sidecars         []*nodes.Sidecar
}

// direct is the control: both talk to the broker itself.
func direct(bootstrap string) link { return link{produce: bootstrap, consume: bootstrap} }

// sealed starts a producer's and a consumer's sidecar in a realm of their own, for the given
// topics and groups.
func sealed(t *testing.T, bootstrap, topics string, groups []string, more nodes.Settings) link {
	t.Helper()
	r := nodes.NewRealm(t)
	// The consumer first: what is produced before it is known is not for it.
	in := nodes.StartSidecar(t, bootstrap, r.Enroll(t, nodes.Role{Consume: topics, Groups: groups}), more)
	out := nodes.StartSidecar(t, bootstrap, r.Enroll(t, nodes.Role{Produce: topics}), more)
	return link{produce: out.Addr, consume: in.Addr, sidecars: []*nodes.Sidecar{out, in}}
}

// bothLinks runs a test over the control link and over sidecars. Topics that the test makes
// must begin with the prefix it is given; groups too.
func bothLinks(t *testing.T, bootstrap, prefix string, f func(t *testing.T, l link, prefix string)) {
	t.Run("direct", func(t *testing.T) { f(t, direct(bootstrap), prefix+"-direct") })
	t.Run("sealed", func(t *testing.T) {
		own := prefix + "-sealed"
		f(t, sealed(t, bootstrap, own+"*", []string{own + "*"}, nil), own)
	})
}

// pids are the process ids of the link's sidecars.
func (l link) pids() []int {
	var all []int
	for _, s := range l.sidecars {
		all = append(all, s.Pid())
	}
	slices.Sort(all)
	return all
}
