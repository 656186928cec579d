package keyring

import (
	"errors"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// ErrRate says that a node writes more than it may (PROTOCOL.md §2.15).
var ErrRate = errors.New("over the bound of one node")

// What one producing node may make a consumer hold. An honest one writes a header for each
// set of recipients and epoch, and starts an instance with each process and each grant that
// failed: it stays far below.
const (
	headerInterval = time.Second // per instance, on average
	headerBurst    = 600         // headers of an instance at once
	maxInstances   = 256         // of a node that are live at a time
	ampleSecrets   = maxSecrets / 2
	fairSecrets    = maxSecrets / 16 // of a node, once ampleSecrets are held of all
)

// A headerRate is what an instance may still write: it grows with the times that its headers
// carry, and a header of an earlier time takes from it too. The zero value is full. Producer
// and consumer count alike, so that no consumer refuses what a producer was allowed.
type headerRate struct {
	spent  uint64 // ms
	newest uint64 // start, Unix ms
}

func (r *headerRate) take(start uint64) bool {
	if start > r.newest {
		r.spent -= min(r.spent, start-r.newest)
		r.newest = start
	}
	if r.spent+ms(headerInterval) > headerBurst*ms(headerInterval) {
		return false
	}
	r.spent += ms(headerInterval)
	return true
}

// instance returns what is known of a header's instance. Its error wraps ErrRate: too many
// of the node are live.
func (c *Consumer) instance(h *wire.GrantHeader) (*instance, error) {
	of := c.compared.instances[h.Producer]
	if i := of[h.Instance]; i != nil {
		return i, nil
	}
	if of == nil {
		of = map[wire.InstanceID]*instance{}
		c.compared.instances[h.Producer] = of
	}
	if len(of) >= maxInstances/4 {
		for id, i := range of {
			if i.useBy <= h.Start {
				delete(of, id)
			}
		}
	}
	if len(of) >= maxInstances {
		return nil, fmt.Errorf("producer %v: more than %d live instances: %w", h.Producer, maxInstances, ErrRate)
	}
	of[h.Instance] = &instance{}
	return of[h.Instance], nil
}

// crowd counts the topic secrets of each producer, anew at most once a second.
type crowd struct {
	counted time.Time
	by      map[wire.NodeID]int
}

// room returns an error that wraps abi.StatusFull where producer's next topic secret must
// not be held: unconsumed ones are never evicted, so that one node must not fill the place
// of all. The error wraps ErrRate too where the producer has more than its part.
func (c *Consumer) room(producer wire.NodeID, now time.Time) error {
	if len(c.state.secrets) >= maxSecrets {
		return fmt.Errorf("%d epochs are held: %w", maxSecrets, abi.StatusFull)
	}
	if len(c.state.secrets) < ampleSecrets {
		return nil
	}
	if age := now.Sub(c.crowd.counted); age >= time.Second || age < 0 {
		c.crowd = crowd{now, map[wire.NodeID]int{}}
		for _, x := range c.state.secrets {
			c.crowd.by[x.producer]++
		}
	}
	if c.crowd.by[producer] >= fairSecrets {
		return fmt.Errorf("%d epochs are held, %d of producer %v: %w: %w", len(c.state.secrets), c.crowd.by[producer], producer, ErrRate, abi.StatusFull)
	}
	c.crowd.by[producer]++
	return nil
}
