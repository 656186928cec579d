package nodes

import (
	"path/filepath"
	"testing"
)

// A Realm is a directory that `realm init` made.
type Realm string

// NewRealm makes a realm that lasts as long as the test.
func NewRealm(t testing.TB) Realm {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "realm")
	MustRun(t, "realm", "init", "--dir", dir)
	return Realm(dir)
}

// A Role is what a node asks its realm for; topics and groups are names, or prefixes that
// end in "*".
type Role struct {
	Produce, Consume string
	Groups           []string
	Share            bool   // hands its groups' keys to other members
	Days             string // validity; empty: the default
}

// Request makes a node's state and its signing request.
func Request(t testing.TB, r Role) (state, csr string) {
	t.Helper()
	dir := t.TempDir()
	state, csr = filepath.Join(dir, "node.state"), filepath.Join(dir, "node.csr")
	args := []string{"enroll", "--state", state, "--csr", csr}
	if r.Produce != "" {
		args = append(args, "--produce", r.Produce)
	}
	if r.Consume != "" {
		args = append(args, "--consume", r.Consume)
	}
	for _, g := range r.Groups {
		args = append(args, "--group", g)
	}
	if r.Share {
		args = append(args, "--share")
	}
	MustRun(t, args...)
	return state, csr
}

// Issue has the realm answer a request and returns the credential's path.
func (r Realm) Issue(t testing.TB, csr, days string) string {
	t.Helper()
	credential := filepath.Join(t.TempDir(), "node.cred")
	args := []string{"realm", "issue", "--dir", string(r), "--csr", csr, "--out", credential}
	if days != "" {
		args = append(args, "--days", days)
	}
	MustRun(t, args...)
	return credential
}

// Enroll makes a node with a credential of the realm and returns its state file.
func (r Realm) Enroll(t testing.TB, want Role) (state string) {
	t.Helper()
	state, csr := Request(t, want)
	MustRun(t, "enroll", "--state", state, "--credential", r.Issue(t, csr, want.Days))
	return state
}
