package adversary_test

import (
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// An office is the realm's issuer: it enrols, renews and revokes.
type office struct {
	*fleet
	issuer *keyring.Issuer
	book   *keyring.Book
	roster *keyring.Roster
	state  *wire.AuthorityState
	read   int
}

func newOffice(f *fleet) *office {
	root, err := keyring.NewRealm(f.random)
	f.must(err)
	o := &office{fleet: f}
	o.issuer, err = root.CertifyIssuer(f.random, at(0).Add(-2*time.Minute), at(0).Add(365*24*time.Hour))
	f.must(err)
	o.book, err = keyring.NewBook(f.random)
	f.must(err)
	o.roster = o.issuer.Roster(keyring.DefaultTiming())
	f.broker.publish(f, o.issuer.Record())
	return o
}

// issue installs a node's first credential, by file.
func (o *office) issue(n *node, s *keyring.State, want keyring.Attributes) {
	now := at(o.step)
	v := keyring.Validity{NotBefore: now.Add(-time.Minute), NotAfter: now.Add(validity)}
	if n.dataFrom > 0 {
		v.DataNotBefore = at(o.step - n.dataFrom)
	}
	file, err := o.issuer.Issue(o.random, s.Node().CSR(want), nil, v)
	o.must(err)
	o.must(s.Node().Install(file, n.now()))
	o.broker.publish(o.fleet, s.Node().RosterRecords()[1])
}

// work answers renewals, and revokes who is to be revoked.
func (o *office) work() {
	now := at(o.step)
	for ; o.read < len(o.broker.roster); o.read++ {
		rec := o.broker.roster[o.read]
		o.must(o.roster.Apply(rec.Key, rec.Value, now))
		if wire.Type(rec.Key[0]) != wire.TypeRenewal {
			continue
		}
		answer, err := o.book.Renew(o.random, o.issuer, o.roster, rec.Key, rec.Value, now)
		if o.revoked(rec.Value) {
			continue // refused
		}
		o.must(err)
		for _, rec := range answer[1:] { // the issuer's own certificate is there
			o.broker.publish(o.fleet, rec)
		}
	}
	var revoke []wire.Revocation
	for _, n := range o.nodes {
		if n.revoked > 0 && n.revoked == o.step {
			for _, c := range o.roster.Credentials() {
				if c.Node == n.id {
					revoke = append(revoke, wire.Revocation{Serial: c.Serial, At: uint64(now.UnixMilli())})
				}
			}
		}
	}
	if len(revoke) == 0 && o.step%(int(keyring.StateValidity/tick)/2) != 0 {
		return
	}
	state, err := o.issuer.NextState(o.state, revoke, now, keyring.StateValidity)
	o.must(err)
	o.state = state
	o.broker.publish(o.fleet, keyring.Record{Key: state.Key(), Value: state.Append(nil)})
}

// revoked reports whether a request for renewal is by a node that is revoked.
func (o *office) revoked(renewal []byte) bool {
	q, err := wire.ParseRenewal(renewal)
	o.must(err)
	for _, n := range o.nodes {
		if n.id == q.Node && n.revoked > 0 && n.revoked <= o.step {
			return true
		}
	}
	return false
}
