package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// shareOffsets returns, for those of groups that are share groups (KIP-932), the topics that
// they use: where a member holds a partition, or a start offset stands, behind which nothing
// is delivered any more (PROTOCOL.md §2.8.4). A cluster that knows no share groups has none.
func (a *Agent) shareOffsets(ctx context.Context, groups []string) (map[string]map[string]map[int32]int64, error) {
	known, err := a.knowsShareGroups(ctx)
	if err != nil || !known {
		return nil, err
	}
	described, err := a.adm.DescribeShareGroups(ctx, groups...)
	if err != nil {
		return nil, fmt.Errorf("describe share groups: %w", err)
	}
	out := make(map[string]map[string]map[int32]int64)
	var names []string
	for name, g := range described {
		switch {
		case errors.Is(g.Err, kerr.GroupIDNotFound), errors.Is(g.Err, kerr.UnsupportedVersion):
			continue // of another kind, or switched off
		case g.Err != nil:
			return nil, fmt.Errorf("share group %s: describe: %w", name, g.Err)
		}
		names = append(names, name)
		out[name] = make(map[string]map[int32]int64)
		for topic := range g.AssignedPartitions() {
			out[name][topic] = make(map[int32]int64)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	offsets, err := a.adm.DescribeShareGroupOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("share groups: start offsets: %w", err)
	}
	for name, g := range offsets {
		if g.Err != nil && !errors.Is(g.Err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("share group %s: start offsets: %w", name, g.Err)
		}
		for topic, partitions := range g.Offsets {
			for partition, o := range partitions {
				if o.Err != nil {
					return nil, fmt.Errorf("share group %s, topic %s, partition %d: start offset: %w", name, topic, partition, o.Err)
				}
				if o.StartOffset < 0 || out[name] == nil {
					continue // nothing was fetched there yet
				}
				if out[name][topic] == nil {
					out[name][topic] = make(map[int32]int64)
				}
				out[name][topic][partition] = o.StartOffset
			}
		}
	}
	return out, nil
}

// knowsShareGroups reports whether any broker that answers knows share groups.
func (a *Agent) knowsShareGroups(ctx context.Context) (bool, error) {
	versions, err := a.adm.ApiVersions(ctx)
	answered := false
	for _, b := range versions {
		if b.Err != nil {
			continue
		}
		answered = true
		if _, ok := b.KeyMaxVersion(int16(kmsg.DescribeShareGroupOffsets)); ok {
			return true, nil
		}
	}
	if !answered {
		return false, fmt.Errorf("versions of the brokers' requests: %w", errors.Join(err, errors.New("no broker answers")))
	}
	return false, nil
}
