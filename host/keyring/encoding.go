package keyring

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// StateMagic starts a state file. A change of the layout changes its number.
const StateMagic = "KX1 state v2\x00"

// Least sizes of a state's elements in bytes, to check counts against.
const (
	prekeySize    = 32 + 16 + 6*8
	minSecretSize = 8 + 32 + 16 + 16 + 4 + 8 + 8 + 32 + 8 + 2 + 8 + 8 + 8 + 4
	endSize       = 4 + 8
	erasedSize    = 8 + 8
	markSize      = 16 + 4 + 8
)

// headSize is what stands in front of the lists, without chain and renewal request.
const headSize = len(StateMagic) + 32 + 2 + 8 + 8 + 8 + 8 + wire.DigestSize + 1

// Marshal encodes the state into one fresh slice that never moved. It holds secrets: the
// caller wipes it with clear once it is written (mode 0600). Integers are big-endian,
// times Unix ms; each list is in ascending order of its first field.
//
//	13b: "KX1 state v2" NUL
//	32b: identity seed, SECRET
//	 2b: length of the chain, 0 before enrolment; then root_pub 32, count 1b, each 2b length and credential
//	 8b: grants_next
//	 8b: erased_total
//	 8b: created of the first bundle, 0 before it
//	 8b: highest seq of an AuthorityState, then 32b its digest
//	 1b: 1 while a renewal is under way, and then its seed 32 SECRET, 2b length and request
//	 2b: prekeys, each: seed 32 SECRET, cred_serial 16, generation, created, not_after, read_back, superseded u64, mark i64 (by generation)
//	 4b: secrets, each: kid 8, ts 32 SECRET, producer 16, instance 16, epoch u32, start, use_by u64, header digest 32,
//	     source i64, topic (2b length), first_seen, ends_at, past_at u64, ends (4b count): partition u32, offset u64
//	 4b: erased kids, each: kid 8, remembered until u64
//	 4b: marks, each: node_id 16, lineage u32, generation u64
//	32b: SHA-256 of all of the above
func (s *State) Marshal() []byte {
	var chain []byte
	if s.node.chain != nil {
		chain = appendChain(nil, s.node.root, s.node.chain)
	}
	secrets := s.sortedSecrets()
	var request []byte
	renewing := 0
	if s.renewal != nil {
		request = s.renewal.request.Append(nil)
		renewing = len(s.renewal.seed) + 2 + len(request)
	}
	size := headSize + len(chain) + renewing + 2 + len(s.prekeys)*prekeySize + 4 +
		4 + len(s.erased)*erasedSize + 4 + len(s.marks)*markSize + sha256.Size
	for _, x := range secrets {
		size += minSecretSize + len(x.topic) + len(x.ends)*endSize
	}
	be := binary.BigEndian
	b := make([]byte, 0, size)
	b = append(b, StateMagic...)
	b = append(b, s.node.seed[:]...)
	b = be.AppendUint16(b, uint16(len(chain)))
	b = append(b, chain...)
	b = be.AppendUint64(b, uint64(s.grantsNext))
	b = be.AppendUint64(b, s.erasedTotal)
	b = be.AppendUint64(b, s.firstBundle)
	b = be.AppendUint64(b, s.authority.seq)
	b = append(b, s.authority.digest[:]...)
	if s.renewal == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = append(b, s.renewal.seed[:]...)
		b = be.AppendUint16(b, uint16(len(request)))
		b = append(b, request...)
	}
	b = be.AppendUint16(b, uint16(len(s.prekeys)))
	for _, p := range s.prekeys {
		b = append(b, p.seed[:]...)
		b = append(b, p.credential[:]...)
		for _, v := range []uint64{p.generation, p.created, p.notAfter, p.readBack, p.superseded, uint64(p.mark)} {
			b = be.AppendUint64(b, v)
		}
	}
	b = be.AppendUint32(b, uint32(len(secrets)))
	for _, x := range secrets {
		b = x.append(b)
	}
	b = be.AppendUint32(b, uint32(len(s.erased)))
	for _, kid := range sortedKeys(s.erased, func(a, b abi.Kid) int { return bytes.Compare(a[:], b[:]) }) {
		b = append(b, kid[:]...)
		b = be.AppendUint64(b, s.erased[kid])
	}
	b = be.AppendUint32(b, uint32(len(s.marks)))
	for _, id := range sortedKeys(s.marks, func(a, b wire.NodeID) int { return bytes.Compare(a[:], b[:]) }) {
		b = append(b, id[:]...)
		b = be.AppendUint32(b, s.marks[id].lineage)
		b = be.AppendUint64(b, s.marks[id].generation)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func (x *secret) append(b []byte) []byte {
	be := binary.BigEndian
	b = append(b, x.kid[:]...)
	b = append(b, x.ts[:]...)
	b = append(b, x.producer[:]...)
	b = append(b, x.instance[:]...)
	b = be.AppendUint32(b, x.epoch)
	b = be.AppendUint64(b, x.start)
	b = be.AppendUint64(b, x.useBy)
	b = append(b, x.header[:]...)
	b = be.AppendUint64(b, uint64(x.source))
	b = be.AppendUint16(b, uint16(len(x.topic)))
	b = append(b, x.topic...)
	b = be.AppendUint64(b, x.firstSeen)
	b = be.AppendUint64(b, x.endsAt)
	b = be.AppendUint64(b, x.pastAt)
	b = be.AppendUint32(b, uint32(len(x.ends)))
	for _, p := range sortedKeys(x.ends, cmp.Compare[int32]) {
		b = be.AppendUint32(b, uint32(p))
		b = be.AppendUint64(b, uint64(x.ends[p]))
	}
	return b
}

func sortedKeys[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	return slices.SortedFunc(maps.Keys(m), compare)
}

// ParseState reads exactly one encoded state and verifies its chain. It copies: the caller
// wipes b. What it refuses it has wiped.
func ParseState(b []byte) (*State, error) {
	r := stateReader{b: b}
	if string(r.take(len(StateMagic))) != StateMagic {
		return nil, fmt.Errorf("state file: it does not start with %q: %w", StateMagic[:len(StateMagic)-1], wire.ErrMalformed)
	}
	s := emptyState()
	err := s.parse(&r)
	if err == nil && (len(r.b) != sha256.Size || sha256.Sum256(b[:len(b)-sha256.Size]) != [32]byte(r.b)) {
		err = wire.ErrMalformed
	}
	if err != nil {
		s.Wipe()
		return nil, fmt.Errorf("state file: %w", err)
	}
	return s, nil
}

func (s *State) parse(r *stateReader) error {
	copy(s.node.seed[:], r.take(32))
	if n := r.u16(); n != 0 {
		chain := r.take(int(n))
		if r.bad {
			return wire.ErrMalformed
		}
		root, parsed, err := parseChain(chain)
		if err != nil {
			return err
		}
		s.node.adopt(root, parsed)
		if s.node.chain[0].Subject != publicOf(&s.node.seed) {
			return fmt.Errorf("the credential is for another identity key: %w", ErrUnauthentic)
		}
	}
	s.grantsNext = int64(r.u64())
	s.erasedTotal = r.u64()
	s.firstBundle = r.u64()
	s.authority.seq = r.u64()
	copy(s.authority.digest[:], r.take(wire.DigestSize))
	if err := s.parseRenewal(r); err != nil {
		return err
	}
	n := int(r.u16())
	for i := 0; i < n && r.has(n-i, prekeySize); i++ {
		p := &prekey{}
		s.prekeys = append(s.prekeys, p)
		copy(p.seed[:], r.take(32))
		copy(p.credential[:], r.take(16))
		for _, v := range []*uint64{&p.generation, &p.created, &p.notAfter, &p.readBack, &p.superseded} {
			*v = r.u64()
		}
		p.mark = int64(r.u64())
		if i > 0 && s.prekeys[i-1].generation >= p.generation {
			return wire.ErrMalformed
		}
		if err := p.derive(); err != nil {
			return err
		}
	}
	var last *secret
	n = int(r.u32())
	for i := 0; i < n && r.has(n-i, minSecretSize); i++ {
		x := &secret{realm: s.node.Realm()}
		x.parse(r)
		s.secrets[x.kid] = x
		if last != nil && bytes.Compare(last.kid[:], x.kid[:]) >= 0 {
			return wire.ErrMalformed
		}
		last = x
	}
	var prev []byte
	n = int(r.u32())
	for i := 0; i < n && r.has(n-i, erasedSize); i++ {
		prev = r.ascending(prev, 8)
		until := r.u64()
		if !r.bad {
			s.erased[abi.Kid(prev)] = until
		}
	}
	prev = nil
	n = int(r.u32())
	for i := 0; i < n && r.has(n-i, markSize); i++ {
		prev = r.ascending(prev, 16)
		m := mark{lineage: r.u32(), generation: r.u64()}
		if !r.bad {
			s.marks[wire.NodeID(prev)] = m
		}
	}
	if r.bad || s.grantsNext < -1 {
		return wire.ErrMalformed
	}
	return nil
}

func (s *State) parseRenewal(r *stateReader) error {
	switch b := r.take(1); {
	case b == nil || b[0] > 1:
		return wire.ErrMalformed
	case b[0] == 0:
		return nil
	}
	s.renewal = &renewal{}
	copy(s.renewal.seed[:], r.take(32))
	request, err := wire.ParseRenewal(r.take(int(r.u16())))
	if err != nil {
		return err
	}
	if request.Subject != publicOf(&s.renewal.seed) || s.node.chain == nil {
		return fmt.Errorf("the renewal is for another key: %w", ErrUnauthentic)
	}
	s.renewal.request = *request
	return nil
}

func (x *secret) parse(r *stateReader) {
	copy(x.kid[:], r.take(8))
	copy(x.ts[:], r.take(32))
	copy(x.producer[:], r.take(16))
	copy(x.instance[:], r.take(16))
	x.epoch = r.u32()
	x.start, x.useBy = r.u64(), r.u64()
	copy(x.header[:], r.take(32))
	if x.source = int64(r.u64()); x.source < -1 {
		r.bad = true
	}
	n := int(r.u16())
	x.topic = string(r.take(n))
	if n == 0 || n > wire.MaxNameLen {
		r.bad = true
	}
	x.firstSeen, x.endsAt, x.pastAt = r.u64(), r.u64(), r.u64()
	n = int(r.u32())
	last := int64(-1)
	for i := 0; i < n && r.has(n-i, endSize); i++ {
		p, end := r.u32(), int64(r.u64())
		if int64(p) <= last || p > 1<<31-1 || end < 0 {
			r.bad = true
			return
		}
		last = int64(p)
		if x.ends == nil {
			x.ends = map[int32]int64{}
		}
		x.ends[int32(p)] = end
	}
}

// A stateReader walks a state. The first failure sticks, and what is read after it is
// zero.
type stateReader struct {
	b   []byte
	bad bool
}

func (r *stateReader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

// has reports whether n elements of at least size bytes can follow.
func (r *stateReader) has(n, size int) bool {
	if n > len(r.b)/size {
		r.bad = true
	}
	return !r.bad
}

// ascending reads n bytes that must sort after prev.
func (r *stateReader) ascending(prev []byte, n int) []byte {
	b := r.take(n)
	if prev != nil && bytes.Compare(prev, b) >= 0 {
		r.bad = true
	}
	return b
}

func (r *stateReader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *stateReader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *stateReader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}
