package simulation

import (
	"testing"
	"time"
)

// TestARealmKeepsItsPromisesForDays is the virtual-clock simulation of PROTOCOL.md §4, V-9.
func TestARealmKeepsItsPromisesForDays(t *testing.T) {
	t.Parallel()
	t.Logf("seed %d, %d days", *seedFlag, *daysFlag)
	f := newFleet(t, *seedFlag)
	f.cast()
	f.sortEvents()
	start := time.Now() // what is printed is measured, and nothing depends on it
	end := began.Add(time.Duration(*daysFlag) * day)
	for f.now.Before(end) {
		f.advance()
	}
	f.drain()
	t.Logf("%v of virtual time in %v", f.now.Sub(began), time.Since(start).Round(time.Millisecond))
	f.report()
	f.settle()
}

// cast is who there is, and what happens to them.
func (f *fleet) cast() {
	f.group("billing", 0, "orders", "payments")
	f.group("audit", 0, "payments")
	f.group("reports", 5*time.Hour, "orders")

	both := []string{"orders", "payments"}
	offset := func() time.Duration { return time.Duration(f.rng.IntN(121)-60) * time.Second }
	// Clocks stand at both ends of what is allowed, the issuer's too.
	checkout := f.node(&node{name: "checkout", produces: both, clock: clock{offset: skew}})
	ledger := f.node(&node{name: "ledger", produces: []string{"payments"}, careful: true, clock: clock{offset: -skew}})
	kiosk := f.node(&node{name: "kiosk", produces: []string{"orders"}, clock: clock{offset: offset()}})
	billing := func(i string, o time.Duration) *node {
		return f.node(&node{name: "billing-" + i, consumes: both, group: "billing", clock: clock{offset: o}})
	}
	audit := func(i string, o time.Duration) *node {
		return f.node(&node{name: "audit-" + i, consumes: []string{"payments"}, group: "audit", clock: clock{offset: o}})
	}
	billing1, billing2, billing3 := billing("1", skew), billing("2", -skew), billing("3", offset())
	audit1, audit2, audit3 := audit("1", -skew), audit("2", skew), audit("3", offset())
	reports := f.node(&node{name: "reports-1", consumes: []string{"orders"}, group: "reports", clock: clock{offset: offset()}})

	// Days apart, so that not all of them end while the issuer is away.
	for i, n := range []*node{checkout, billing1, audit1, reports, kiosk} {
		f.on(time.Duration(i)*7*time.Minute, func() { f.office.enrol(n) })
	}
	for i, n := range []*node{ledger, billing2, audit2, billing3, audit3} {
		f.on(day+time.Duration(i)*11*time.Hour, func() { f.office.enrol(n) })
	}
	f.away(5*day, 5*day+12*time.Hour)
	f.away(23*day, 3*time.Hour)
	f.outages(3*day+12*time.Hour, 20*time.Minute)
	f.outages(12*day+5*time.Hour, 3*time.Hour)
	f.outages(21*day+7*time.Hour, time.Minute)

	// A machine is lost, and its successor finds the backlog with its peers.
	for i, at := range []time.Duration{4*day + 2*time.Hour, 17*day + 3*time.Hour} {
		f.on(at, func() {
			lost := f.groups["billing"].last()
			lost.up, lost.gone = false, true
			f.groups["billing"].paused = true
		})
		next := billing([]string{"4", "5"}[i], offset())
		f.on(at+time.Hour, func() { f.office.enrol(next) })
		f.on(at+90*time.Minute, func() { f.groups["billing"].paused = false })
	}
	// Two are revoked, and somebody goes on with what they had.
	f.on(3*day+4*time.Hour, func() {
		f.office.strike(kiosk)
		kiosk.thief = true
		f.theft = f.now.Add(4 * time.Hour)
	})
	f.on(3*day+6*time.Hour, func() { kiosk.up, kiosk.gone = false, true })
	f.on(4*day+9*time.Hour, func() {
		f.office.strike(audit3)
		audit3.thief = true
	})
	// A group that is new.
	f.on(4*day+20*time.Hour, func() {
		f.group("insight", 0, "payments")
		f.office.enrol(f.node(&node{name: "insight-1", consumes: []string{"payments"}, group: "insight", clock: clock{offset: offset()}}))
	})
	// A group that comes back after the hard cap.
	f.on(11*day, func() { f.groups["reports"].paused = true })
	f.on(19*day+12*time.Hour, func() { f.groups["reports"].paused = false })
	// Longer away than bundles are good for, while the others read nothing.
	f.on(18*day, func() { audit2.up, audit2.away = false, true })
	f.on(20*day, func() { f.groups["audit"].paused = true })
	f.on(22*day, func() {
		audit2.away = false
		audit2.resume()
	})
	f.on(22*day+6*time.Hour, func() { f.groups["audit"].paused = false })

	for _, n := range []*node{checkout, ledger, kiosk, billing1, billing2, audit1, audit2, reports} {
		f.unrest(n, day+time.Duration(n.rng.IntN(24))*time.Hour)
	}
	for i := range int(*daysFlag) {
		f.on(time.Duration(i)*day+30*time.Minute, f.office.restart)
	}
}

// unrest suspends a node now and then, and restarts it.
func (f *fleet) unrest(n *node, at time.Duration) {
	for ; at < time.Duration(*daysFlag)*day; at += time.Duration(6+n.rng.IntN(11)) * time.Hour {
		pause := time.Duration(60+n.rng.IntN(900)) * time.Minute
		if n.rng.IntN(4) == 0 {
			f.on(at, func() {
				if n.up && !n.thief {
					n.restart()
					f.count("restarts", 1)
				}
			})
			continue
		}
		f.on(at, func() {
			if !n.up || n.thief {
				return
			}
			n.up = false
			f.count("suspensions", 1)
			f.events = append(f.events, event{f.now.Add(pause), func() {
				if !n.gone && !n.up && !n.away {
					n.resume()
				}
			}})
			f.sortEvents()
		})
		at += pause
	}
}

// away is a time without the issuer, outages one without the broker.
func (f *fleet) away(at, d time.Duration) {
	f.on(at, func() { f.office.up = false })
	f.on(at+d, func() { f.office.up = true })
}

func (f *fleet) outages(at, d time.Duration) {
	f.on(at, func() { f.broker.up = false })
	f.on(at+d, func() { f.broker.up = true })
}

// last is the member that joined last and still runs.
func (g *group) last() *node {
	for i := len(g.members) - 1; ; i-- {
		if n := g.members[i]; !n.gone {
			return n
		}
	}
}

// drain lets everybody come back, and the groups read what there is.
func (f *fleet) drain() {
	f.events = nil
	f.office.up, f.broker.up = true, true
	for _, n := range f.nodes {
		n.produces = nil
		if !n.gone && n.state != nil && !n.up {
			n.resume()
		}
	}
	for _, g := range f.groups {
		g.paused, g.lag = false, 0
	}
	for range int(time.Hour / tick) {
		f.advance()
	}
}

// settle is what must have come of it in the end: each value was opened by each group, or it was
// said why not; and what the simulation is about has happened.
func (f *fleet) settle() {
	for _, name := range sorted(f.groups) {
		g := f.groups[name]
		skipped, all := 0, 0
		for _, n := range g.skipped {
			skipped += n
		}
		for _, topic := range g.topics {
			for i := range int32(partitions) {
				all += f.broker.at(topic, i).sealed
			}
		}
		if g.opened+g.expired+skipped != all {
			f.fail("group %s: %d opened, %d skipped, %d expired of %d", name, g.opened, skipped, g.expired, all)
		}
	}
	happened := []string{"renewals", "renewals of an ended credential", "renewals refused: revoked", "requests of a thief", "refused: written by a thief",
		"secrets had from peers", "restarts", "suspensions"}
	for _, what := range happened {
		if f.counts[what] == 0 {
			f.fail("nothing of this happened: %s", what)
		}
	}
}
