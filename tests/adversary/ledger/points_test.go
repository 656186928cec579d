package ledger

// A point is a place in a process's life at which it may end without notice.
type point string

// points are the steps of abi/PROTOCOL.md §2.7, §2.8 and §2.13, each before and after what
// it writes.
var points = []point{
	"the state is read, and not yet written",
	"the state is written to its temporary file",
	"the state is renamed",
	"an instance is drawn",
	"the credential is published",
	"a prekey is drawn, and not on disk",
	"a prekey is on disk, and its bundle not published",
	"a bundle is published",
	"the roster is read",
	"a draft is prepared",
	"some parts of a grant are written",
	"a grant is written",
	"a grant is acknowledged",
	"an epoch begins",
	"a lease is cut",
	"a lease is installed",
	"a batch is sealed",
	"a client's batch is sealed again",
	"the next epoch is due",
	"an epoch is replaced, and its leases are with the workers",
	"an epoch is retired, and its leases are erased",
	"a grant is opened, and its secret not on disk",
	"a secret is erased, and on disk",
	"an instance is ended, and its leases are with the workers",
	"an instance is ended, and its leases are erased",
	"a worker is lost",
}

// A crash ends a process where it stands.
type crash struct{ at point }

// reach is called by a process at each point. It does not return where the process is to
// crash there.
func (p *process) reach(at point) {
	p.reached[at]++
	if p.crashAt == at {
		if p.crashAfter--; p.crashAfter <= 0 {
			p.crashed[at]++
			panic(crash{at})
		}
	}
}

// survives runs f and reports whether the process still lives.
func (p *process) survives(f func()) (alive bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
		}
	}()
	f()
	return true
}
