package batches

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/module/filter"
)

// native is the module's logic compiled for this machine.
type native struct {
	filter *filter.Filter
	keys   *Keys
	buf    []byte
}

func newNative(k *Keys) (*native, error) {
	n := &native{filter: filter.New(rand.Reader), keys: k, buf: make([]byte, 4<<20)}
	if err := n.filter.Configure(Config).Err(); err != nil {
		return nil, err
	}
	root, _ := k.Root(context.Background(), Topic, 0, k.kid)
	return n, n.filter.InstallRoot(&root).Err()
}

// seal copies the batch first, as a host must.
func (n *native) seal(batch []byte) error {
	copy(n.buf, batch)
	_, status := n.filter.SealBatch(n.buf, len(batch), []byte(Topic), Partition, uint64(time.Now().UnixMilli()))
	if status == abi.StatusNeedLease {
		lease, err := n.keys.Lease(context.Background(), Topic)
		if err != nil {
			return err
		}
		if err := n.filter.InstallLease(&lease).Err(); err != nil {
			return err
		}
		return n.seal(batch)
	}
	return status.Err()
}

func (n *native) open(sealed []byte) error {
	copy(n.buf, sealed)
	_, status := n.filter.OpenBatch(n.buf, len(sealed), []byte(Topic), Partition)
	return status.Err()
}
