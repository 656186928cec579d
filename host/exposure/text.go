package exposure

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// shown is how many epochs of a topic, or of a prekey, the text lists; JSON has all.
const shown = 12

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	p := &printer{w: w}
	if r.Node == "" {
		p.printf("a node that is not enrolled yet, as of %s\n", stamp(r.AsOf))
	} else {
		p.printf("node %s of realm %s, as of %s\n", r.Node, r.Realm, stamp(r.AsOf))
	}
	p.printf("\nThe promise: with this timing P = %s, the larger of %s back and %s forward\n", r.P, r.Backward, r.Forward)
	if r.Holds {
		p.printf("  it holds for this state\n")
	}
	for _, c := range r.Conditions {
		text, hint, hinted := strings.Cut(c.Text, "; hint: ")
		p.printf("  does not hold: %s\n    %s\n", c.Name, text)
		if hinted {
			p.printf("    hint: %s\n", hint)
		}
	}
	p.printf("\nIf this state leaked now, with every byte that the broker stored:\n")
	p.printf("  %s\n", r.Summary())
	if !r.From.IsZero() {
		worst := r.Until
		for _, k := range r.Prekeys {
			worst = later(worst, k.Worst)
		}
		if worst.After(r.Until) {
			p.printf("  (where the broker withholds this node's next prekey, or the node stays away: after %s)\n", stamp(worst))
		}
	}
	if !r.Grants && len(r.Prekeys) > 0 {
		p.printf("  (a prekey opens what peers shared for it, too, which may be older: --grants looks)\n")
	}
	p.epochs(r)
	for i := range r.Prekeys {
		p.prekey(&r.Prekeys[i], r)
	}
	p.sending(r)
	p.printf("\nNot readable:\n")
	p.printf("  what was sealed under topic secrets that were erased: %d in the life of this state, %d still remembered so that no grant brings them back%s\n", r.Erased, r.Remembered,
		flag(len(r.Prekeys) > 0, ", except where a prekey above opens their grants"))
	p.printf("  all that is granted neither to a prekey above nor to a topic secret above\n")
	switch {
	case r.Produces && r.Running:
		p.printf("  what this node sealed so far: its sending keys only go forward, and are never in the file\n")
	case r.Produces:
		p.printf("  what this node sealed: its sending keys are never in the file; the memory of a running sidecar opens its present and prepared epochs (--agent asks it)\n")
	}
	p.printf("\nA thief who goes on using the stolen identity gets new keys, and what members of its groups still hold and share, until its credential ends or is revoked (PROTOCOL.md §3, C5).\n")
	return p.err
}

// Summary says in a line what would be readable.
func (r *Report) Summary() string {
	if r.From.IsZero() {
		return "nothing would be readable"
	}
	return fmt.Sprintf("readable is nothing sealed before %s, and nothing sealed after %s", stamp(r.From), stamp(r.Until))
}

// epochs prints the topic secrets, by topic.
func (p *printer) epochs(r *Report) {
	for list := r.Epochs; len(list) > 0; {
		n := slices.IndexFunc(list, func(e Epoch) bool { return e.Topic != list[0].Topic })
		if n < 0 {
			n = len(list)
		}
		topic := list[:n]
		list = list[n:]
		p.printf("  topic %s, epochs by topic secrets: %d\n", topic[0].Topic, len(topic))
		for i := range topic {
			e := &topic[i]
			if i == shown {
				p.printf("    and %d more, to %s; --json lists them\n", len(topic)-i, stamp(topic[len(topic)-1].UseBy))
				break
			}
			p.printf("    kid %s  %s to %s  %s\n      %s\n", e.Kid, stamp(e.Start), stamp(e.UseBy), e.offsets(r.Offsets), e.Stays)
		}
	}
}

// sending prints the epochs that only the memory of a running node opens.
func (p *printer) sending(r *Report) {
	for i := range r.Sending {
		e := &r.Sending[i]
		if i == shown {
			p.printf("  and %d more that this node seals in; --json lists them\n", len(r.Sending)-i)
			break
		}
		p.printf("  topic %s: what this node seals from %s to %s, kid %s, by its memory\n", e.Topic, stamp(later(r.AsOf, e.Start)), stamp(e.UseBy), e.Kid)
	}
}

func (p *printer) prekey(k *Prekey, r *Report) {
	p.printf("  prekey %s, made %s: opens grants of epochs to %s, to %s at worst\n", k.ID, stamp(k.Created), stamp(k.Until), stamp(k.Worst))
	switch {
	case k.Superseded.IsZero() && k.Overdue:
		p.printf("    in use; its successor is overdue\n")
	case k.Superseded.IsZero():
		p.printf("    in use; goes from %s on\n", stamp(k.ErasedFrom))
	case k.Overdue:
		p.printf("    superseded; should have gone by %s\n", stamp(k.ErasedFrom))
	default:
		p.printf("    superseded; goes from %s on\n", stamp(k.ErasedFrom))
	}
	for i := range k.Epochs {
		e := &k.Epochs[i]
		if i == shown {
			p.printf("    and %d more; --json lists them\n", len(k.Epochs)-i)
			break
		}
		p.printf("    kid %s  %s to %s  topic %s%s\n", e.Kid, stamp(e.Start), stamp(e.UseBy), e.Topic, flag(r.Offsets, ", "+e.offsets(true)))
	}
	if r.Grants && len(k.Epochs) == 0 {
		p.printf("    no grant names it so far\n")
	}
}

// offsets says where the epoch's records are: exactly, where the topics were looked at, or as
// far as the node has noted it.
func (e *Epoch) offsets(looked bool) string {
	if looked {
		if len(e.Offsets) == 0 {
			return "no records so far"
		}
		parts := make([]string, 0, len(e.Offsets))
		for _, partition := range slices.Sorted(maps.Keys(e.Offsets)) {
			o := e.Offsets[partition]
			parts = append(parts, fmt.Sprintf("%d from %d to %d (%d records)", partition, o.First, o.Last, o.Records))
		}
		return "partition " + strings.Join(parts, ", ")
	}
	if len(e.Below) == 0 {
		return "offsets not noted yet"
	}
	parts := make([]string, 0, len(e.Below))
	for _, partition := range slices.Sorted(maps.Keys(e.Below)) {
		parts = append(parts, fmt.Sprintf("%d below %d", partition, e.Below[partition]))
	}
	return "partition " + strings.Join(parts, ", ")
}

// String says until when, in a line.
func (s *Stay) String() string {
	switch {
	case s.Overdue:
		return fmt.Sprintf("should have gone by %s (%s): the node does not run", stamp(s.Latest), s.Rule)
	case s.Rule == RuleCredential:
		return "goes at once: the credential covers it no more"
	case s.Rule == RuleWindow:
		return fmt.Sprintf("goes at %s: every group is past it", stamp(s.Latest))
	case s.Rule == RuleHardCap:
		return fmt.Sprintf("goes at %s: by the hard cap alone, or the topic's retention", stamp(s.Latest))
	}
	return fmt.Sprintf("goes as it is consumed, at %s at the earliest, and by the hard cap at %s", stamp(s.Earliest), stamp(s.Latest))
}

// A printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(p.w, format, args...); err != nil && p.err == nil {
		p.err = err
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func flag(set bool, text string) string {
	if set {
		return text
	}
	return ""
}
