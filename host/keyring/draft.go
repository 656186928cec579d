package keyring

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// A Draft is one header's epochs (one for each of its topics), waiting for their grant to
// be acknowledged. es and the topic secrets are gone; the trees' roots are left.
type Draft struct {
	Topics     []string // sorted
	Epoch      uint32
	Start      time.Time
	UseBy      time.Time
	Recipients []Recipient // by node id
	Records    []Record    // one for each partition of GrantsTopic

	epochs []*epoch
}

func (d *Draft) wipe() {
	for _, e := range d.epochs {
		e.stack.Wipe()
	}
	d.epochs = nil
}

func compareRecipients(a, b Recipient) int { return bytes.Compare(a.Node[:], b.Node[:]) }

// Prepare makes one draft for each set of topics that have equal recipients (at most 512
// topics in one). A topic that cannot be granted is in refused, with an error wrapping
// abi.StatusNoRecipient or StatusNotEntitled, and its present epoch ends: nothing is
// sealed for those who are no longer entitled. One for which the instance has no grant left
// (PROTOCOL.md §2.15) is in refused with StatusUnavailable, and keeps its epoch. err (randomness, encoding, and where
// RequireFresh was called an AuthorityState that is not fresh) ends nothing and leaves
// nothing behind.
func (p *Producer) Prepare(topics []string, r *Roster, now time.Time) (drafts []*Draft, refused map[string]error, err error) {
	if p.requireFresh {
		if err := r.CheckFresh(now); err != nil {
			return nil, nil, err
		}
	}
	refused = map[string]error{}
	var order []wire.Digest
	sets := map[wire.Digest][]string{}
	recipients := map[wire.Digest][]Recipient{}
	topics = slices.Clone(topics)
	slices.Sort(topics)
	for _, topic := range slices.Compact(topics) {
		err := p.node.MayProduce(topic, now)
		var rs []Recipient
		if err == nil {
			rs, err = r.Recipients(topic, p.groups(topic), now)
		}
		if err == nil && (topic == "" || len(topic) > wire.MaxNameLen) {
			err = fmt.Errorf("topic name of %d bytes: %w", len(topic), wire.ErrMalformed)
		}
		if err != nil {
			refused[topic] = err
			continue
		}
		set := digestRecipients(rs)
		if sets[set] == nil {
			order = append(order, set)
		}
		sets[set] = append(sets[set], topic)
		recipients[set] = rs
	}
	next, prev, rate := p.next, p.prev, p.rate
	later := map[string]error{}
	for _, set := range order {
		for part := range slices.Chunk(sets[set], wire.MaxTopics) {
			if !p.rate.take(unixMs(now)) {
				for _, topic := range part {
					later[topic] = fmt.Errorf("topic %s: %d grants in %v: %w; hint: give topics the same consumers, or let epochs last longer", topic, headerBurst, headerBurst*headerInterval, abi.StatusUnavailable)
				}
				continue
			}
			d, err := p.draft(part, set, recipients[set], r.authoritySeq(), now)
			if err != nil {
				for _, d := range drafts {
					delete(p.pending, d)
					d.wipe()
				}
				p.next, p.prev, p.rate = next, prev, rate
				return nil, nil, err
			}
			p.pending[d] = true
			drafts = append(drafts, d)
		}
	}
	for topic := range refused {
		p.retire(topic)
	}
	maps.Copy(refused, later) // what they have may be used up
	return drafts, refused, nil
}

// draft draws one es, derives the trees of topics from it, wraps it for every recipient
// and forgets it. authority is the seq of the AuthorityState that chose them.
func (p *Producer) draft(topics []string, set wire.Digest, recipients []Recipient, authority uint64, now time.Time) (*Draft, error) {
	start := now.Truncate(time.Millisecond)
	d := &Draft{
		Topics:     slices.Clone(topics),
		Epoch:      p.next,
		Start:      start,
		UseBy:      start.Add(p.timing.Epoch + p.timing.Lead),
		Recipients: recipients,
	}
	h := wire.GrantHeader{
		Realm:        p.node.Realm(),
		Producer:     p.node.ID(),
		Credential:   p.node.Credential().Serial,
		Instance:     p.instance,
		Epoch:        d.Epoch,
		Start:        unixMs(d.Start),
		UseBy:        unixMs(d.UseBy),
		AuthoritySeq: authority,
		RosterDigest: set,
		Prev:         p.prev,
	}
	var es secretKey
	defer clear(es[:])
	if err := readAll(p.rand, es[:]); err != nil {
		return nil, fmt.Errorf("epoch secret: %w", err)
	}
	for _, topic := range topics {
		e, commit, err := newEpoch(&es, &h, topic)
		if err != nil {
			d.wipe()
			return nil, err
		}
		e.start, e.useBy, e.recipients = d.Start, d.UseBy, recipients
		d.epochs = append(d.epochs, e)
		h.Topics = append(h.Topics, wire.GrantTopic{Name: topic, Commit: commit})
	}
	if err := p.seal(d, &h, &es); err != nil {
		d.wipe()
		return nil, err
	}
	return d, nil
}

// newEpoch derives a topic's tree and commitment from es (PROTOCOL.md §2.3).
func newEpoch(es *secretKey, h *wire.GrantHeader, topic string) (*epoch, wire.Digest, error) {
	context := topicContext(h, topic)
	var ts secretKey
	var root ratchet.Node
	defer clear(ts[:])
	defer clear(root[:])
	if err := deriveTopicSecret(&ts, es, context); err != nil {
		return nil, wire.Digest{}, err
	}
	commit, err := deriveCommit(&ts, context)
	if err != nil {
		return nil, commit, err
	}
	if err := deriveRoot(&root, &ts, context, commit); err != nil {
		return nil, commit, err
	}
	e := &epoch{topic: topic, instance: h.Instance, number: h.Epoch, kid: KidOf(commit)}
	e.stack.Reset(0, 0, &root)
	return e, commit, nil
}

// seal wraps es for the draft's recipients and makes its signed parts, one for each
// partition. The instance moves on to the next header when all went well.
func (p *Producer) seal(d *Draft, h *wire.GrantHeader, es *secretKey) error {
	parts := make([]wire.Grant, GrantPartitions)
	for i := range parts {
		parts[i] = wire.Grant{Header: *h, Partition: uint8(i)}
	}
	digest := h.Digest()
	for _, r := range d.Recipients {
		w := wire.Wrap{Node: r.Node, Prekey: r.Prekey}
		info := grantInfo(digest, r.Node, r.bundle.KEMPub[:])
		if err := wrapSecret(&w, r.kem, info, es); err != nil {
			return err
		}
		part := &parts[GrantPartition(r.Node)]
		part.Wraps = append(part.Wraps, w)
	}
	for i := range parts {
		g := &parts[i]
		g.Signature = sign(&p.node.seed, wire.TypeEpochGrant, h.Realm, g.AppendBody(nil))
		value := g.Append(nil)
		if len(value) > wire.MaxControlSize {
			return fmt.Errorf("grant of %d topics for %d recipients: %d bytes in a partition, at most %d", len(h.Topics), len(d.Recipients), len(value), wire.MaxControlSize)
		}
		d.Records = append(d.Records, Record{Partition: int32(i), Key: h.Key(), Value: value})
	}
	p.next++
	p.prev = digest
	return nil
}
