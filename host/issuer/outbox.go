package issuer

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// rewriteAfter is when a record is written again that was not read back.
const rewriteAfter = 10 * time.Second

// maxPresent bounds what is remembered of the roster. Beyond it, what is there already is
// written again.
const maxPresent = 1 << 18

// An outbox is what the roster still lacks: a record stays in it until it was read back.
type outbox struct {
	records []pending
	read    uint64            // records of the roster so far
	present map[string]placed // credentials and answers on the roster, by key
}

// placed is where a record of the roster was read.
type placed struct {
	value wire.Digest
	at    uint64 // outbox.read then
}

type pending struct {
	keyring.Record
	written time.Time // zero: not yet
}

// note takes a record of the roster as read.
func (o *outbox) note(key, value []byte) {
	o.read++
	kept := o.records[:0]
	for _, p := range o.records {
		if !bytes.Equal(p.Key, key) || !bytes.Equal(p.Value, value) || (p.Value == nil) != (value == nil) {
			kept = append(kept, p)
		}
	}
	clear(o.records[len(kept):])
	o.records = kept
	if o.present == nil {
		o.present = map[string]placed{}
	}
	switch t := wire.Type(key[0]); {
	case value == nil:
		delete(o.present, string(key))
	case (t == wire.TypeCredential || t == wire.TypeEnrolment) && len(o.present) < maxPresent:
		o.present[string(key)] = placed{sha256.Sum256(value), o.read}
	}
}

// add takes a record unless the roster has it, and reports whether it is new. asked is when
// what it answers was read: a node that asks after its answer was written has not seen it, and
// gets it again (PROTOCOL.md §2.12).
func (o *outbox) add(r keyring.Record, asked uint64) bool {
	p, known := o.present[string(r.Key)]
	known = known && r.Value != nil && p.value == sha256.Sum256(r.Value)
	if known && asked <= p.at {
		return false
	}
	for i, p := range o.records {
		if bytes.Equal(p.Key, r.Key) {
			if !bytes.Equal(p.Value, r.Value) {
				o.records[i] = pending{Record: r}
			}
			return false
		}
	}
	o.records = append(o.records, pending{Record: r})
	return !known
}

// due returns what is to be written now, and takes it for written.
func (o *outbox) due(now time.Time) []keyring.Record {
	var out []keyring.Record
	for i := range o.records {
		if p := &o.records[i]; now.Sub(p.written).Abs() >= rewriteAfter {
			p.written = now
			out = append(out, p.Record)
		}
	}
	return out
}

// failed has everything written again.
func (o *outbox) failed() {
	for i := range o.records {
		o.records[i].written = time.Time{}
	}
}
