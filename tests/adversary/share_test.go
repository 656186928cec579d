package adversary_test

import (
	"maps"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// ask writes an EpochRequest for kids, by topic, and what goes with them, for each group that
// has a peer; without kids for the newest that are missing. It returns false where it asked
// nobody.
func (n *node) ask(kids map[abi.Kid]string) bool {
	lately := func(kid abi.Kid) bool {
		step, ok := n.asked[kid]
		return ok && n.step-step < 12
	}
	list := slices.SortedFunc(maps.Keys(kids), compareKids)
	if kids == nil {
		list = n.consumer.Requestable(nil, lately)
	}
	var groups []string
	for _, group := range n.groups {
		if slices.ContainsFunc(list, func(kid abi.Kid) bool {
			topic := kids[kid]
			if topic == "" {
				topic = n.consumer.Missing(kid)
			}
			return n.consumer.HasPeer(topic, []string{group}, n.roster, n.now())
		}) {
			groups = append(groups, group)
		}
	}
	if kids != nil && len(groups) > 0 {
		list = n.consumer.Requestable(list, lately)
	}
	for _, kid := range list {
		n.asked[kid] = n.step
	}
	if n.state.Node().Check(n.now()) != nil {
		return false
	}
	for _, group := range groups {
		rec, err := n.consumer.EpochRequest(group, list, n.now())
		n.must(err)
		n.broker.publish(n.fleet, rec)
	}
	return len(groups) > 0
}

func compareKids(a, b abi.Kid) int { return slices.Compare(a[:], b[:]) }

// share answers what peers have asked for.
func (n *node) share() {
	part := n.state.Node().GrantPartition()
	for _, q := range n.requests {
		// A request by a node that is entitled no more is an error, and for the log.
		tasks, _ := n.consumer.Share(q.Key, q.Value, n.roster, n.now())
		for _, task := range tasks {
			rec, err := n.consumer.MakeShare(task, n.broker.grants[part][task.Source].Value, n.now())
			n.must(err)
			k, err := wire.ParseKeyShare(rec.Value)
			n.must(err)
			n.broker.grants[rec.Partition] = append(n.broker.grants[rec.Partition], appended{rec, at(n.step)})
			n.broker.shares = append(n.broker.shares, k)
		}
	}
	n.requests = nil
	n.rules[earliest].share(n)
	n.rules[latest].share(n)
}
