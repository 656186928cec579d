package adversary

import (
	"bytes"
	"fmt"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
	"github.com/wasm-e2ee/wasm-e2ee/module/ratchet"
)

// An Epoch is one topic's epoch of which something was stored.
type Epoch struct {
	Kid     abi.Kid
	Epoch   uint32
	Topic   string
	Start   time.Time
	Records int // stored under this kid
	Opened  int
	Via     keyring.Via // how its key was had, where Opened > 0
}

// A Report says what a leak opens.
type Report struct {
	Records int // sealed records the broker stored
	Opened  int
	Epochs  []Epoch // in the order in which they began
}

// Attack tries what the bytes of a node's state give away on everything in log: each
// prekey on each wrap and share, each topic secret, and each root had that way on each sealed value
// whatever its kid says.
func Attack(state []byte, log *Log) (*Report, error) {
	roots, err := keyring.UnsafeRoots(state, log.Grants)
	if err != nil {
		return nil, fmt.Errorf("leaked state: %w", err)
	}
	shared, err := keyring.UnsafeShares(state, log.Shares)
	if err != nil {
		return nil, fmt.Errorf("leaked state: %w", err)
	}
	roots = append(roots, shared...)
	report := &Report{}
	at := map[abi.Kid]int{}
	for _, grant := range log.Grants {
		for _, topic := range grant.Header.Topics {
			kid := keyring.KidOf(topic.Commit)
			if _, seen := at[kid]; !seen {
				at[kid] = len(report.Epochs)
				report.Epochs = append(report.Epochs, Epoch{Kid: kid, Epoch: grant.Header.Epoch, Topic: topic.Name,
					Start: time.UnixMilli(int64(grant.Header.Start))})
			}
		}
	}
	for i := range log.Values {
		header, err := wire.ParsePackedHeader(log.Values[i].Bytes)
		if err != nil {
			continue
		}
		records := int(header.NumRecords)
		report.Records += records
		epoch, known := at[header.Kid]
		if !known {
			epoch = len(report.Epochs)
			at[header.Kid] = epoch
			report.Epochs = append(report.Epochs, Epoch{Kid: header.Kid, Topic: log.Values[i].Topic, Start: log.Values[i].Time})
		}
		report.Epochs[epoch].Records += records
		for r := range roots {
			if opens(&roots[r], &log.Values[i], &header) {
				report.Opened += records
				report.Epochs[epoch].Opened += records
				report.Epochs[epoch].Via = roots[r].Via
				break
			}
		}
	}
	return report, nil
}

// opens tries one root on one value, at the position the value was stored at.
func opens(root *keyring.UnsafeRoot, v *Value, header *wire.PackedHeader) bool {
	var tree ratchet.Root
	var top, leaf ratchet.Node
	top = root.Root
	tree.Reset(&top)
	if !tree.Seek(header.Leaf, &leaf) {
		return false
	}
	nonce := header.Nonce()
	pctx := wire.Pctx([]byte(v.Topic), v.Partition)
	aad := wire.PackedAAD((*[wire.PackedHeaderSize]byte)(v.Bytes), &pctx)
	buf := bytes.Clone(v.Bytes[wire.PackedHeaderSize:])
	return kernel.Open(buf, (*[kernel.KeySize]byte)(&leaf), &nonce, aad[:])
}
