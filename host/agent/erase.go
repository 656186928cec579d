package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// tick erases what is due. It asks nobody, so that the hard cap holds while Kafka is out of
// reach. The state is on disk without a key before the data planes are told.
func (a *Agent) tick() {
	at, read := a.now(), a.grantsLog.position()
	a.mu.Lock()
	a.consumer.NoteGrants(read) // also past what is no grant: an empty log, a marker
	kids := a.consumer.Tick(at)
	a.counts.erased += uint64(len(kids))
	a.mu.Unlock()
	if len(kids) == 0 {
		return
	}
	a.save()
	a.erase(kids)
	a.replays.forget(kids)
	const each = 16 // lines at most; a node that comes back after days erases thousands
	for i, kid := range kids {
		if i == each {
			a.log.Info("roots erased", "more", len(kids)-each)
			break
		}
		a.log.Info("root erased", "kid", hex.EncodeToString(kid[:]))
	}
}

// passPrekeys tells the keyring how far the grants partition reached, for prekeys that wait
// to be erased (PROTOCOL.md §2.8.3).
func (a *Agent) passPrekeys() {
	asked := a.now()
	a.mu.Lock()
	waiting := a.consumer.PrekeysWaiting(asked)
	a.mu.Unlock()
	if !waiting {
		return
	}
	end, err := a.askGrantsEnd()
	if err != nil {
		a.warn("superseded prekeys stay until the grants topic can be asked", a.refusedOr(err))
		return
	}
	a.mu.Lock()
	a.consumer.NoteGrantsEnd(end, asked)
	a.mu.Unlock()
}

// progress learns what the credential's groups have passed (PROTOCOL.md §2.8.4).
func (a *Agent) progress() {
	ctx, cancel := context.WithTimeout(a.ctx, time.Minute)
	defer cancel()
	if err := a.noteEnds(ctx); err != nil {
		a.warn("roots stay until end offsets can be read", a.refusedOr(err))
	}
	a.mu.Lock()
	topics := a.consumer.Watched()
	a.mu.Unlock()
	if len(topics) == 0 {
		return
	}
	a.noteRetention(ctx, topics) // of epochs whose ends an earlier process noted, too
	if err := a.noteProgress(ctx, topics); err != nil {
		a.warn("roots stay until group offsets can be read", a.refusedOr(err))
	}
}

func (a *Agent) noteEnds(ctx context.Context) error {
	asked := a.now()
	a.mu.Lock()
	topics := a.consumer.EndsWanted(asked)
	a.mu.Unlock()
	if len(topics) == 0 {
		return nil
	}
	a.noteRetention(ctx, topics)
	all, err := eachTopic(ctx, topics, a.adm.ListEndOffsets)
	for topic, ends := range all {
		a.mu.Lock()
		a.consumer.NoteEnds(topic, ends, asked)
		a.mu.Unlock()
	}
	a.replays.noteEnds(a.endsOf)
	return err
}

// retentionAge is how old an answer about a topic's retention may be.
const retentionAge = 10 * time.Minute

// noteRetention lets the hard cap end with the data (PROTOCOL.md §2.17). It only makes it
// shorter: without an answer the configured one holds.
func (a *Agent) noteRetention(ctx context.Context, topics []string) {
	for _, topic := range topics {
		if time.Since(a.retention[topic]) < retentionAge {
			continue
		}
		value, err := describe(ctx, a.cl, topic).get(topic, "retention.ms")
		if unauthorized(err) {
			err = fmt.Errorf("%w\nhint: allow the agent's principal DescribeConfigs on Topic %s", err, topic)
		}
		var ms int64
		if err == nil {
			ms, err = strconv.ParseInt(value, 10, 64)
		}
		if err != nil {
			a.warn("the hard cap does not follow the topic's retention", err, "topic", topic)
			continue
		}
		a.retention[topic] = time.Now()
		a.mu.Lock()
		a.consumer.NoteRetention(topic, time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond)))*time.Millisecond)
		a.mu.Unlock()
	}
}

func (a *Agent) noteProgress(ctx context.Context, topics []string) error {
	starts, errs := eachTopic(ctx, topics, a.adm.ListStartOffsets)
	groups, known, err := a.groups(ctx, topics)
	if err != nil {
		return err
	}
	for topic, start := range starts {
		a.mu.Lock()
		scans, warnings := a.consumer.NoteProgress(topic, keyring.Progress{LogStart: start, Groups: groups[topic], Known: known}, a.now())
		a.mu.Unlock()
		for _, w := range warnings {
			a.log.Warn(w, "topic", topic)
		}
		for _, s := range scans {
			kids, inside, err := scan(ctx, a.cfg.Kafka, s.Topic, s.Partition, s.From, s.To)
			if err != nil {
				errs = errors.Join(errs, err)
				break
			}
			a.mu.Lock()
			a.consumer.NoteScan(s, kids, inside)
			a.mu.Unlock()
		}
	}
	return errs
}

// groups returns, per topic, the committed offsets of those of the credential's groups that
// use it: that have committed there, or hold one of its partitions; of share groups the start
// offsets. A credential may list
// groups that read other topics only; they must not keep this one's keys. known are the
// groups that use any topic of the credential: one that is not has yet to start.
func (a *Agent) groups(ctx context.Context, topics []string) (used map[string]map[string]map[int32]int64, known []string, err error) {
	names, err := a.groupNames(ctx)
	if err != nil || len(names) == 0 {
		return nil, nil, err
	}
	used = make(map[string]map[string]map[int32]int64)
	covered := a.node.Topics()
	use := func(topic, group string) map[int32]int64 {
		if wire.MatchAny(covered, topic) && !slices.Contains(known, group) {
			known = append(known, group)
		}
		if !slices.Contains(topics, topic) {
			return nil
		}
		if used[topic] == nil {
			used[topic] = make(map[string]map[int32]int64)
		}
		if used[topic][group] == nil {
			used[topic][group] = make(map[int32]int64)
		}
		return used[topic][group]
	}
	for group, resp := range a.adm.FetchManyOffsets(ctx, names...) {
		if errors.Is(resp.Err, kerr.GroupIDNotFound) {
			continue
		}
		if resp.Err != nil {
			return nil, nil, fmt.Errorf("group %s: committed offsets: %w", group, resp.Err)
		}
		for topic, partitions := range resp.Fetched {
			for partition, o := range partitions {
				if o.Err != nil {
					return nil, nil, fmt.Errorf("group %s, topic %s, partition %d: committed offset: %w", group, topic, partition, o.Err)
				}
				if o.At < 0 {
					continue
				}
				if committed := use(topic, group); committed != nil {
					committed[partition] = o.At
				}
			}
		}
	}
	assigned, err := a.assigned(ctx, names)
	if err != nil {
		return nil, nil, err
	}
	for group, held := range assigned {
		for topic := range held {
			use(topic, group)
		}
	}
	sharing, err := a.shareOffsets(ctx, names)
	if err != nil {
		return nil, nil, err
	}
	for group, topics := range sharing {
		for topic, starts := range topics {
			if passed := use(topic, group); passed != nil {
				maps.Copy(passed, starts)
			}
		}
	}
	return used, known, nil
}

// groupNames returns the groups of the credential: those named exactly, and those of the
// cluster that a prefix covers.
func (a *Agent) groupNames(ctx context.Context) ([]string, error) {
	names := make(map[string]bool)
	var prefixes bool
	for _, p := range a.node.Groups() {
		if p.Prefix {
			prefixes = true
		} else {
			names[p.Name] = true
		}
	}
	if prefixes {
		listed, err := a.adm.ListGroups(ctx)
		if err != nil {
			return nil, fmt.Errorf("list groups: %w", err)
		}
		for _, group := range listed.Groups() {
			if a.AllowsGroup(group) {
				names[group] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// assigned returns the topics that members of each group hold now, in groups of the classic
// protocol and of KIP-848's.
func (a *Agent) assigned(ctx context.Context, groups []string) (map[string]map[string]bool, error) {
	out := make(map[string]map[string]bool)
	add := func(group string, set kadm.TopicsSet) {
		for topic := range set {
			if out[group] == nil {
				out[group] = make(map[string]bool)
			}
			out[group][topic] = true
		}
	}
	classic, err := a.adm.DescribeGroups(ctx, groups...)
	if err != nil {
		return nil, fmt.Errorf("describe groups: %w", err)
	}
	var rest []string
	for name, g := range classic {
		// A group of another kind is not found here. Any other error leaves open whether
		// somebody is reading.
		if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("group %s: describe: %w", name, g.Err)
		}
		add(name, g.AssignedPartitions())
		if len(g.Members) == 0 {
			rest = append(rest, name)
		}
	}
	if len(rest) == 0 {
		return out, nil
	}
	// Brokers before 4.0 do not know the request, and then there is no such group.
	modern, err := a.adm.DescribeConsumerGroups(ctx, rest...)
	if err != nil && len(modern) == 0 {
		return out, nil
	}
	for name, g := range modern {
		add(name, g.AssignedPartitions())
	}
	return out, nil
}

// eachTopic lists offsets of topics, by topic and partition, and says which could not be
// had. A topic that may not be described fails a whole listing: then each is asked alone.
func eachTopic(ctx context.Context, topics []string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (map[string]map[int32]int64, error) {
	listed, err := list(ctx, topics...)
	if err != nil && len(topics) > 1 {
		out := make(map[string]map[int32]int64)
		var errs error
		for _, topic := range topics {
			one, err := eachTopic(ctx, []string{topic}, list)
			errs = errors.Join(errs, err)
			maps.Copy(out, one)
		}
		return out, errs
	}
	if err != nil {
		return nil, fmt.Errorf("topic %s: offsets: %w", topics[0], err)
	}
	out := make(map[string]map[int32]int64)
	var errs error
	for _, topic := range topics {
		if out[topic], err = offsetsOf(listed, topic); err != nil {
			errs = errors.Join(errs, err)
			delete(out, topic)
		}
	}
	return out, errs
}

// offsetsOf takes one topic's offsets from a listing, or says which is missing.
func offsetsOf(l kadm.ListedOffsets, topic string) (map[int32]int64, error) {
	if len(l[topic]) == 0 {
		return nil, fmt.Errorf("topic %s: offsets: %w", topic, kerr.UnknownTopicOrPartition)
	}
	out := make(map[int32]int64, len(l[topic]))
	for partition, o := range l[topic] {
		if o.Err != nil {
			return nil, fmt.Errorf("topic %s, partition %d: offsets: %w", topic, partition, o.Err)
		}
		out[partition] = o.Offset
	}
	return out, nil
}
