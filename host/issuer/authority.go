package issuer

import (
	"slices"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// authority keeps the AuthorityState fresh: a new one each S/2, and at once when a node forked
// (PROTOCOL.md §2.12, §2.14). It follows the newest of what roster and book hold, and revokes
// all that either did: a broker that serves an older state takes nothing back, and a state that
// lost its place to another one of the same number loses none of its revocations. The caller
// holds mu.
func (d *desk) authority(b *keyring.Book, now time.Time) []keyring.Record {
	onRoster, held := d.view.Authority(), b.Authority()
	prev := onRoster
	if prev == nil || held != nil && held.Seq > prev.Seq {
		prev = held
	}
	revoke := b.Forked(d.view, now)
	for _, other := range []*wire.AuthorityState{onRoster, held} {
		if other != nil && other != prev {
			revoke = append(revoke, other.Revoked...)
		}
	}
	if prev != nil {
		revoke = slices.DeleteFunc(revoke, func(r wire.Revocation) bool {
			return slices.ContainsFunc(prev.Revoked, func(p wire.Revocation) bool { return p.Serial == r.Serial && p.At <= r.At })
		})
		if len(revoke) == 0 && now.Before(time.UnixMilli(int64(prev.Issued)).Add(d.cfg.Fresh/2)) {
			b.NoteAuthority(prev)
			if onRoster == nil || onRoster.Seq < prev.Seq || d.lost {
				return []keyring.Record{{Key: prev.Key(), Value: prev.Append(nil)}}
			}
			return nil
		}
	}
	next, err := d.cfg.Issuer.NextState(prev, revoke, now, d.cfg.Fresh)
	if err != nil {
		d.log.Error("no authority state: nobody learns who is revoked", "err", err)
		return nil
	}
	b.NoteAuthority(next)
	if len(revoke) != 0 {
		d.log.Warn("credentials revoked", "seq", next.Seq, "revoked", len(next.Revoked), "new", len(revoke))
	}
	return []keyring.Record{{Key: next.Key(), Value: next.Append(nil)}}
}
