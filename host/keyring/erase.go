package keyring

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// maxScan is the longest stretch of offsets that is read to find out whether a group is
// past an epoch (PROTOCOL.md §2.8.4).
const maxScan = 10_000

// scanned is what is known about one epoch's values in one partition below E_p: none from
// clean on, at least one at or after dirty. Unknown: clean is E_p, dirty is -1.
type scanned struct{ clean, dirty int64 }

func ms(d time.Duration) uint64 { return uint64(d.Milliseconds()) }

// NoteRetention says how long the broker keeps topic's data: the hard cap is never longer.
// Zero or less means for ever.
func (c *Consumer) NoteRetention(topic string, d time.Duration) {
	if d <= 0 {
		delete(c.retention, topic)
		return
	}
	c.retention[topic] = d
}

// hardCap is H for topic in ms.
func (c *Consumer) hardCap(topic string) uint64 {
	if d, ok := c.retention[topic]; ok {
		return ms(min(d, c.timing.HardCap))
	}
	return ms(c.timing.HardCap)
}

// EndsWanted lists the topics whose partitions' end offsets (high watermarks) must be
// noted now: an epoch of theirs is over for Skew + Settle (PROTOCOL.md §2.8.4).
func (c *Consumer) EndsWanted(now time.Time) []string {
	var out []string
	for _, x := range c.state.secrets {
		if c.endsDue(x, unixMs(now)) && !slices.Contains(out, x.topic) {
			out = append(out, x.topic)
		}
	}
	slices.Sort(out)
	return out
}

func (c *Consumer) endsDue(x *secret, at uint64) bool {
	return x.endsAt == 0 && at >= x.useBy+ms(c.timing.Skew+c.timing.Settle)
}

// NoteEnds gives the end offset of every partition of topic, by an answer to a question
// that was asked at asked or later.
func (c *Consumer) NoteEnds(topic string, ends map[int32]int64, asked time.Time) {
	at := unixMs(asked)
	if len(ends) == 0 {
		return
	}
	noted := make(map[int32]int64, len(ends)) // one for all: after a day away they are thousands
	for p, end := range ends {
		noted[p] = max(end, 0)
	}
	for _, x := range c.state.secrets {
		if c.endsDue(x, at) && x.topic == topic {
			x.endsAt, x.ends = at, noted
			c.state.version++
		}
	}
}

// Ends returns E_p of a held kid by partition, which is the caller's; nil until NoteEnds. A
// value at E_p or after it is a replay (PROTOCOL.md §2.8.6).
func (c *Consumer) Ends(kid abi.Kid) (ends map[int32]int64, held bool) {
	x := c.state.secrets[kid]
	if x == nil {
		return nil, false
	}
	return maps.Clone(x.ends), true
}

// Holds reports whether the topic secret of kid is held.
func (c *Consumer) Holds(kid abi.Kid) bool { return c.state.secrets[kid] != nil }

// Watched lists the topics for which progress is wanted: secrets are held whose end
// offsets are known and that some group has not passed.
func (c *Consumer) Watched() []string {
	var out []string
	for _, x := range c.state.secrets {
		if x.endsAt != 0 && x.pastAt == 0 && !slices.Contains(out, x.topic) {
			out = append(out, x.topic)
		}
	}
	slices.Sort(out)
	return out
}

// A Progress is what the broker says about one topic.
type Progress struct {
	LogStart map[int32]int64            // per partition
	Groups   map[string]map[int32]int64 // committed offsets of each group that uses the topic and that Node.AllowsGroup; a partition without a commit is absent
	Known    []string                   // groups that Node.AllowsGroup and that use any topic of the credential
}

// A Scan asks for the kids of the values in [From, To) of a partition: transaction
// markers and empty partitions make plain comparison of offsets never true for most
// clients. At most 10,000 offsets.
type Scan struct {
	Topic     string
	Partition int32
	From, To  int64
}

// NoteProgress decides which groups are past which epochs of topic. The scans it returns
// settle the rest: read each, give it to NoteScan, and the next NoteProgress counts it.
// warnings are for the log, each given once.
func (c *Consumer) NoteProgress(topic string, p Progress, now time.Time) (scans []Scan, warnings []string) {
	at := unixMs(now)
	holds, warning := c.absent(topic, p)
	for _, x := range c.state.secrets {
		if x.topic != topic || x.endsAt == 0 {
			continue
		}
		// A group that has just been started is given time to join.
		late := at >= x.endsAt+ms(c.timing.Window)
		past := !holds && (late || c.everyPatternUses(p.Groups))
		for group, committed := range p.Groups {
			if !c.state.node.AllowsGroup(group) {
				continue
			}
			all := true
			for partition := range x.ends {
				ok, scan := x.passed(partition, committed, p.LogStart)
				if scan.To > scan.From {
					scans = append(scans, scan)
					// What an earlier process found stands until its own scan says otherwise, or
					// every restart would begin the window anew.
					ok = x.pastAt != 0
				}
				all = all && ok
			}
			past = past && all
			if x.past == nil {
				x.past = map[string]bool{}
			}
			x.past[group] = all
		}
		if past != (x.pastAt != 0) {
			x.pastAt = 0
			if past {
				x.pastAt = at
			}
			c.state.version++
		}
		if late && warning != "" && !c.warned[warning] {
			c.warned[warning] = true
			warnings = append(warnings, warning)
		}
	}
	return mergeScans(scans), warnings
}

// absent reports whether a group that does not use topic holds its epochs all the same, up
// to the hard cap: it may yet start, and read from the beginning (PROTOCOL.md §2.8.4).
func (c *Consumer) absent(topic string, p Progress) (holds bool, warning string) {
	groups := c.state.node.Groups()
	if len(groups) == 0 {
		return true, "" // said at start (PROTOCOL.md §2.8.7)
	}
	for _, g := range groups {
		if !g.Prefix && !slices.Contains(p.Known, g.Name) {
			return true, fmt.Sprintf("group %s: the credential names it, but it has read nothing yet: keys are kept for it, at most until the hard cap (%v); hint: start it, or issue a credential without it", g.Name, c.timing.HardCap)
		}
	}
	switch {
	case len(p.Groups) != 0:
		return false, ""
	case len(p.Known) != 0 && c.state.node.HasRole(wire.RoleProduce):
		return false, fmt.Sprintf("topic %s: the groups of the credential read other topics, so it counts as one that this node only produces to, and keys are not kept for them; hint: start a group on it within the window (%v) if it is to be read here", topic, c.timing.Window)
	}
	return true, fmt.Sprintf("topic %s: no group of the credential reads it: keys are kept, at most until the hard cap (%v); hint: start the group, or issue a credential without the topic", topic, c.timing.HardCap)
}

// everyPatternUses reports whether each of the credential's groups is among those given.
func (c *Consumer) everyPatternUses(groups map[string]map[int32]int64) bool {
	for _, pattern := range c.state.node.Groups() {
		found := false
		for group := range groups {
			found = found || pattern.Match(group)
		}
		if !found {
			return false
		}
	}
	return true
}

// passed reports whether a group with these committed offsets has read all of the epoch's
// values in partition. Where offsets alone do not say, a scan would.
func (x *secret) passed(partition int32, committed, logStart map[int32]int64) (bool, Scan) {
	end := x.ends[partition]
	from, ok := committed[partition]
	start, known := logStart[partition]
	if known && (!ok || start > from) {
		from, ok = start, true
	}
	if end == 0 || ok && from >= end {
		return true, Scan{}
	}
	if !ok {
		return false, Scan{}
	}
	seen, found := x.scans[partition]
	switch {
	case found && from >= seen.clean:
		return true, Scan{}
	case found && from <= seen.dirty, end-from > maxScan:
		return false, Scan{}
	}
	return false, Scan{x.topic, partition, from, end}
}

// mergeScans joins scans of one partition that start at the same offset.
func mergeScans(scans []Scan) []Scan {
	slices.SortFunc(scans, func(a, b Scan) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.From, b.From), cmp.Compare(b.To, a.To))
	})
	return slices.CompactFunc(scans, func(a, b Scan) bool { return a.Partition == b.Partition && a.From == b.From })
}

// NoteScan says which kids the values in the scanned range carry. inside says that it
// starts within a batch: the value that names its kid stands before the range, and the
// group has not read all of it, so that it is past no epoch that ends later.
func (c *Consumer) NoteScan(s Scan, kids map[abi.Kid]bool, inside bool) {
	for _, x := range c.state.secrets {
		end, ok := x.ends[s.Partition]
		if x.topic != s.Topic || x.endsAt == 0 || !ok || s.To < end || s.From >= end {
			continue
		}
		seen, ok := x.scans[s.Partition]
		if !ok {
			seen = scanned{clean: end, dirty: -1}
		}
		// A group that an earlier process found past the epoch stands in a later one's batch.
		if inside && (ok || x.pastAt == 0) || kids[x.kid] {
			seen.dirty = max(seen.dirty, s.From)
		} else {
			seen.clean = min(seen.clean, s.From)
		}
		if x.scans == nil {
			x.scans = map[int32]scanned{}
		}
		x.scans[s.Partition] = seen
	}
}

// expired reports whether the secret must be gone.
func (x *secret) expired(c *Consumer, at uint64) bool {
	return at >= x.useBy+c.hardCap(x.topic) || x.pastAt != 0 && at >= x.pastAt+ms(c.timing.Window)
}

// Tick erases what is due: topic secrets that every group has passed for Window, those
// past the hard cap, those of topics or roles that the credential lost, and prekeys. It
// returns the erased kids, for the data planes. Call it every second or so.
func (c *Consumer) Tick(now time.Time) []abi.Kid {
	at := unixMs(now)
	var kids []abi.Kid
	for kid, x := range c.state.secrets {
		if !x.expired(c, at) && c.state.node.covers(wire.RoleConsume, x.topic) == nil {
			continue
		}
		clear(x.ts[:])
		delete(c.state.secrets, kid)
		c.state.erased[kid] = x.useBy + ms(c.timing.HardCap)
		c.state.erasedTotal++
		c.state.version++
		kids = append(kids, kid)
	}
	for kid, until := range c.state.erased {
		if at >= until {
			delete(c.state.erased, kid)
			c.rejectKid(kid, abi.StatusErased) // a grant of this age is refused by its times
			c.state.version++
		}
	}
	c.erasePrekeys()
	return kids
}
