package exposure

import (
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// longest is what P is promised to be at most with the defaults.
const longest = 10 * time.Minute

// stay applies PROTOCOL.md §2.8.4 to one topic secret.
func stay(k *keyring.KidView, c *wire.Credential, t keyring.Timing, asOf time.Time) *Stay {
	s := &Stay{Rule: RuleConsumed, Latest: k.UseBy.Add(t.HardCap)}
	switch {
	case c == nil || !c.Roles.Has(wire.RoleConsume) || !wire.MatchAny(c.Topics, k.Topic):
		s.Rule, s.Latest = RuleCredential, asOf
		s.Earliest = asOf
	case k.Past:
		s.Rule, s.Latest = RuleWindow, earlier(s.Latest, k.PastAt.Add(t.Window))
		s.Earliest = s.Latest
	case len(c.Groups) == 0:
		s.Rule, s.Earliest = RuleHardCap, s.Latest
	default:
		// It is not past anything yet, so that W has not begun; it does not before ends are noted.
		s.Earliest = earlier(s.Latest, later(asOf, k.UseBy.Add(t.Skew+t.Settle)).Add(t.Window))
	}
	s.Overdue = asOf.After(s.Latest.Add(patience))
	s.Earliest, s.Latest = s.Earliest.UTC(), s.Latest.UTC()
	return s
}

// prekey applies PROTOCOL.md §2.8.3 and the forward window of §2.17 to the i-th prekey of
// list.
func prekey(list []keyring.PrekeyView, i int, c *wire.Credential, t keyring.Timing, asOf time.Time) Prekey {
	v := &list[i]
	p := Prekey{ID: v.ID.String(), Generation: v.Generation, Created: v.Created.UTC()}
	// The last grant for it is made while its bundle, and the credential, are good.
	last := v.NotAfter
	if c != nil {
		last = earlier(last, time.UnixMilli(int64(c.NotAfter)))
	}
	epoch := t.Lead + t.Epoch + t.Lead + t.Skew
	p.Worst = last.Add(epoch).UTC()
	if v.Superseded {
		// A producer reads the roster to its end before it makes a grant.
		p.Superseded = v.SupersededAt.UTC()
		p.ErasedFrom = p.Superseded.Add(t.PrekeyGrace)
		p.Until = earlier(p.Worst, p.Superseded.Add(epoch))
		p.Overdue = asOf.After(p.ErasedFrom.Add(patience))
		return p
	}
	next := v.Created.Add(t.PrekeyRotation)
	if i+1 < len(list) {
		next = list[i+1].Created
	}
	p.Overdue = asOf.After(next.Add(patience))
	if p.Overdue {
		p.Until = p.Worst // nothing says when the next one comes
		p.ErasedFrom = asOf.Add(t.PrekeyGrace).UTC()
		return p
	}
	p.Until = earlier(p.Worst, next.Add(t.Forward()-t.PrekeyRotation)).UTC()
	p.ErasedFrom = next.Add(t.PrekeyGrace).UTC()
	return p
}

// conditions finds why the mapping to the promise at the end of PROTOCOL.md §3 is not true
// for this state.
func (r *Report) conditions(v keyring.View, t keyring.Timing) {
	add := func(name, format string, args ...any) {
		r.Conditions = append(r.Conditions, Condition{name, fmt.Sprintf(format, args...)})
	}
	d := keyring.DefaultTiming()
	switch {
	case t.P() <= longest:
	case t.Window > d.Window:
		add(Replay, "P is %v with this timing, over %v, because keys are kept %v longer than groups need them, to seek back (policy.replay): what they have read stays readable that long (default %v)", t.P(), longest, t.Window, d.Window)
	default:
		add(LongPeriod, "P is %v with this timing, over %v; hint: shorten %s", t.P(), longest, longestPeriod(t))
	}
	c := v.Credential
	if c == nil || !c.Roles.Has(wire.RoleConsume) && len(r.Epochs)+len(r.Prekeys) == 0 {
		return
	}
	if len(c.Groups) == 0 {
		add(NoGroups, "the credential names no consumer group, so that nothing is erased as it is consumed, only by the hard cap of %v; hint: enrol the node with --group", t.HardCap)
	}
	var kept, superseded, behind int
	var oldest, worst time.Time
	for _, e := range r.Epochs {
		switch {
		case e.Stays.Overdue:
			kept++
		case e.Stays.Rule == RuleConsumed && r.AsOf.After(e.UseBy.Add(t.Skew+t.Settle+t.Window+patience)):
			behind++
			if oldest.IsZero() || e.Start.Before(oldest) {
				oldest = e.Start
			}
		}
	}
	for _, p := range r.Prekeys {
		switch {
		case !p.Overdue:
		case p.Superseded.IsZero():
			worst = later(worst, p.Until)
		default:
			superseded++
		}
	}
	if !worst.IsZero() || superseded+kept > 0 {
		text := "the node is stopped, or cannot reach Kafka: "
		if !worst.IsZero() {
			text += fmt.Sprintf("its next prekey is missing, and until one comes grants are wrapped for the one it has, which opens epochs up to %s; ", stamp(worst))
		}
		if superseded+kept > 0 {
			text += fmt.Sprintf("due to be erased and still in the file: %d prekeys, %d topic secrets; ", superseded, kept)
		}
		add(Offline, "%shint: start its sidecar, or delete the file if it will not run again", text)
	}
	if behind > 0 {
		add(Unconsumed, "epochs that some group is not past: %d, from %s on; it lags, has yet to start, or commits nothing, and they are in flight until it does, or the hard cap of %v", behind, stamp(oldest), t.HardCap)
	}
}

// longestPeriod names what adds most to P, by its key in the configuration.
func longestPeriod(t keyring.Timing) string {
	name, most := "epoch", t.Epoch
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"lead", t.Lead}, {"skew", t.Skew}, {"settle", t.Settle}, {"window", t.Window}, {"prekey_rotation", t.PrekeyRotation}} {
		if f.d > most {
			name, most = f.name, f.d
		}
	}
	return name
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
